package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"keyfob/internal/access"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
	"keyfob/internal/settings"
	"keyfob/profiles"
)

// maxPolicy is how many characters an inline session policy may have
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
const maxPolicy = 2048

// inlinePolicy checks a policy document and writes it as short as it can be:
// one policy is one text, whatever its spaces.
func inlinePolicy(text []byte) (string, error) {
	var doc map[string]json.RawMessage
	var short bytes.Buffer
	switch {
	case !utf8.Valid(text):
		return "", errors.New("it is not UTF-8")
	case json.Unmarshal(text, &doc) != nil || doc == nil || json.Compact(&short, text) != nil:
		return "", errors.New("it is no JSON object")
	case doc["Statement"] == nil:
		return "", errors.New("it has no Statement")
	case utf8.RuneCount(short.Bytes()) > maxPolicy:
		return "", fmt.Errorf("it has %d characters without its spaces, and a session policy may have %d", utf8.RuneCount(short.Bytes()), maxPolicy)
	}
	return short.String(), nil
}

// readPolicy reads a policy's file.
func readPolicy(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return "", err
	}
	short, err := inlinePolicy(text)
	if err != nil {
		return "", fmt.Errorf("%s is no session policy: %w", path, err)
	}
	return short, nil
}

// policy reads the policy of an endpoint or a rule; key is its place in
// config.toml.
func (c *config) policy(key, path string, arns []string, reading func(path string)) (cred.SessionPolicy, error) {
	p := cred.SessionPolicy{ARNs: arns}
	if path == "" {
		return p, nil
	}
	reading(path)
	if err := c.checkFiles(path); err != nil {
		return p, err
	}
	var err error
	if p.Inline, err = readPolicy(path); err != nil {
		return p, c.Bad(key, "a JSON policy document, as for IAM", "%v", err)
	}
	return p, nil
}

// tooWide tells of each profile that an endpoint or a rule hands out under a
// session policy which its last link can't carry, or under two: it is refused
// to everybody. d.mu is held.
func (d *daemon) tooWide() []string {
	c := d.conf()
	if d.wide.set != d.files || d.wide.config != c {
		d.wide.set, d.wide.config, d.wide.list = d.files, c, policyProblems(d.files, c)
	}
	return d.wide.list
}

// wide is what tooWide found for what was read.
type wide struct {
	set    *profiles.Set
	config *config
	list   []string
}

func policyProblems(set *profiles.Set, c *config) []string {
	rules, err := access.NewRules(access.RulesConfig{Owner: peer.Self(), Profiles: c.rules})
	if err != nil {
		return nil // told elsewhere
	}
	var list []string
	say := func(what, profile, encoded string) {
		if encoded == "" {
			return
		}
		policy, err := cred.DecodePolicy(encoded)
		if err != nil {
			return
		}
		plain, err := set.Resolve(named(profile))
		if err != nil || plain.Err != nil {
			return // that is another matter
		}
		q := named(profile)
		q.PolicyInline, q.PolicyARNs = policy.Inline, policy.ARNs
		if p, err := set.Resolve(q); err == nil && p.Err != nil {
			list = append(list, fmt.Sprintf("the session policy of %s keeps the profile %s from being handed out: %s", what, profile, trimCannot(oneText(p.Err.Error()))))
		}
	}
	for i := range c.endpoints {
		e := &c.endpoints[i]
		for _, name := range e.profiles() {
			what := "the endpoint " + e.Listen
			if ruled := rules.Policy(name); ruled != "" && e.policy != "" && ruled != e.policy {
				list = append(list, fmt.Sprintf("%s and a [[profile]] rule put different session policies on the profile %s, which is refused there", what, name))
				continue
			}
			say(what, name, e.policy)
		}
	}
	if len(c.rules) > 0 {
		for _, name := range set.Names() {
			say("a [[profile]] rule", name, rules.Policy(name))
		}
	}
	return list
}

// policyOf is the session policy that a caller asks for, encoded.
func policyOf(p control.SessionPolicy) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", &control.Error{Code: control.CodeUsage, Message: "cannot use the session policy: " + fmt.Sprintf(format, args...)}
	}
	out := cred.SessionPolicy{ARNs: p.PolicyARNs}
	if p.Policy != "" {
		var err error
		if out.Inline, err = inlinePolicy([]byte(p.Policy)); err != nil {
			return bad("%v", err)
		}
	}
	for _, arn := range p.PolicyARNs {
		if !settings.ValidPolicyARN(arn) {
			return bad("%q is no ARN of a managed policy", arn)
		}
	}
	if len(p.PolicyARNs) > settings.MaxPolicyARNs {
		return bad("a session takes %d managed policies at most, and these are %d", settings.MaxPolicyARNs, len(p.PolicyARNs))
	}
	return out.Encode(), nil
}

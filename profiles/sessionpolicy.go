package profiles

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// What AWS takes as the session policy of a role's session
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
const (
	maxPolicyChars = 2048
	maxPolicyARNs  = 10
	// maxPolicyFile bounds what is read of a file; white space does not
	// count against AWS's limit.
	maxPolicyFile = 64 << 10
)

// takesPolicy reports whether the call behind a link of this kind takes a
// session policy: AssumeRole, AssumeRoleWithWebIdentity and
// AssumeRoleWithSAML do.
func (k Kind) takesPolicy() bool {
	switch k {
	case KindAssumeRole, KindWebIdentity, KindOIDC, KindSAML:
		return true
	}
	return false
}

// narrow gives the last link the session policy of the query. A chain that
// can't carry it is an error: credentials without the policy would be wider
// than what was asked for. A policy of the profile's own is not combined with
// it, because AWS adds up what the session policies of one call allow.
func (r *resolver) narrow(v *view, steps []step, q Query) *Error {
	if q.PolicyInline == "" && len(q.PolicyARNs) == 0 {
		return nil
	}
	last := &steps[len(steps)-1]
	if !last.Kind.takesPolicy() {
		return fault(last.Origin, "cannot narrow profile %s by a session policy: its credentials end in a link of kind %s, and only the session of a role takes one", v.name, last.Kind).
			withHelp("name a role: with --role-arn, or by role_arn in a profile of its own")
	}
	for _, key := range []string{"session_policy", "session_policy_arns"} {
		if _, ok := last.Params[key]; !ok {
			continue
		}
		f, _ := last.v.get(key)
		return fault(f.origin, "cannot narrow profile %s by a session policy: it has one of its own, %s, and AWS would allow what either of them allows", v.name, said(key, f)).
			withHelp("use a copy of the profile without " + key)
	}
	if q.PolicyInline != "" {
		last.Params["session_policy_inline"] = q.PolicyInline
	}
	if len(q.PolicyARNs) > 0 {
		last.Params["session_policy_arns"] = strings.Join(q.PolicyARNs, ",")
	}
	return nil
}

// SessionPolicy is what the link's session is narrowed by: a JSON document
// as AWS gets it, "" for none, and the ARNs of managed policies. Where it
// stands in a file, the file is read each time. The error is an *Error and
// says what AWS would refuse.
func (l *Link) SessionPolicy() (inline string, arns []string, err error) {
	unusable := func(help, format string, args ...any) error {
		return fault(l.Origin, "cannot use profile %s: %s", l.Profile, fmt.Sprintf(format, args...)).withHelp(help)
	}
	arns = splitARNs(l.Params["session_policy_arns"])
	if len(arns) > maxPolicyARNs {
		return "", nil, unusable("", "it has %d session policy ARNs, and AWS takes %d", len(arns), maxPolicyARNs)
	}
	for _, arn := range arns {
		if arnField(arn, 2) != "iam" || !strings.HasPrefix(arnField(arn, 5), "policy/") {
			return "", nil, unusable("arn:aws:iam::ACCOUNT:policy/NAME, or arn:aws:iam::aws:policy/NAME for AWS's own", "%q is not the ARN of a managed policy", arn)
		}
	}
	path, text := l.Params["session_policy"], l.Params["session_policy_inline"]
	if path != "" && text != "" {
		return "", nil, unusable("", "it has two session policies, and AWS takes one document")
	}
	name, where, help := "the session policy", "line %d of the session policy", "shorten it, or name managed policies"
	switch {
	case path != "":
		name, where, help = name+" "+path, name+" "+path+":%d", "shorten it, or use session_policy_arns"
		b, err := readPolicy(path)
		if err != nil {
			return "", nil, unusable("correct session_policy, the path of a JSON file", "cannot read %s: %v", name, err)
		}
		if len(b) > maxPolicyFile {
			return "", nil, unusable("", "%s is longer than AWS allows (%d characters)", name, maxPolicyChars)
		}
		text = string(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	case text == "":
		return "", arns, nil
	}
	var whole json.RawMessage
	if err := json.Unmarshal([]byte(text), &whole); err != nil {
		line := 1
		if syntax, ok := err.(*json.SyntaxError); ok {
			line += strings.Count(text[:min(int(syntax.Offset), len(text))], "\n")
		}
		return "", nil, unusable("", "%s is not JSON: %v", fmt.Sprintf(where, line), err)
	}
	if trimmed := bytes.TrimSpace(whole); trimmed[0] != '{' {
		return "", nil, unusable("", "%s is no JSON object", name)
	}
	// White space outside strings counts against AWS's limit.
	var short bytes.Buffer
	if err := json.Compact(&short, whole); err != nil {
		return "", nil, unusable("", "cannot read %s: %v", name, err)
	}
	inline = short.String()
	n := 0
	for _, c := range inline {
		if n++; c > 0xff {
			return "", nil, unusable(fmt.Sprintf(`write it as \u%04X, or leave it out`, c), "%s has the character %q, and AWS takes none above U+00FF", name, c)
		}
	}
	if n > maxPolicyChars {
		return "", nil, unusable(help, "%s has %d characters, and AWS allows %d", name, n, maxPolicyChars)
	}
	return inline, arns, nil
}

// readPolicy reads a little more than maxPolicyFile of a file. Its errors do
// not name the path.
func readPolicy(path string) ([]byte, error) {
	b, err := func() ([]byte, error) {
		// A FIFO would hold the fetch for as long as nobody writes to it.
		if info, err := os.Stat(path); err != nil {
			return nil, err
		} else if !info.Mode().IsRegular() {
			return nil, errors.New("it is not a regular file")
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxPolicyFile+1))
	}()
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return b, err
}

// splitARNs splits a list of ARNs at its commas. The name of a policy may
// have commas, too: what does not begin like an ARN belongs to the one before
// it.
func splitARNs(s string) []string {
	var arns []string
	for _, p := range splitList(s) {
		if n := len(arns); n > 0 && !strings.HasPrefix(p, "arn:") {
			arns[n-1] += "," + p
			continue
		}
		arns = append(arns, p)
	}
	return arns
}

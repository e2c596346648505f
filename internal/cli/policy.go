package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"keyfob/internal/control"
)

// What AWS takes of a session policy
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html):
// 2,048 characters, without the white space that nobody needs, and ten ARNs.
const (
	maxPolicy     = 2048
	maxPolicyARNs = 10
	maxPolicyFile = 64 << 10 // bytes, with the white space
)

func policyFlags(o *options, fs *flag.FlagSet) {
	fs.StringVar(&o.policy, "policy", "", "JSON `file` with a session policy: the session may do what both it and the role allow")
	fs.Var(&o.policyARNs, "policy-arn", "`ARN` of a managed policy as session policy; may be repeated")
}

// listFlag is a flag that may be repeated.
type listFlag []string

func (l *listFlag) String() string { return strings.Join(*l, ",") }

func (l *listFlag) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// sessionPolicy reads what --policy and --policy-arn name. The daemon gets
// the text, not the file: it may be another user, in another directory.
func (a *app) sessionPolicy() (p control.SessionPolicy, err error) {
	if len(a.opts.policyARNs) > maxPolicyARNs {
		return p, usage(fmt.Sprintf("cannot use %d session policies: AWS takes %d", len(a.opts.policyARNs), maxPolicyARNs), "")
	}
	for _, arn := range a.opts.policyARNs {
		if !strings.HasPrefix(arn, "arn:") || !strings.Contains(arn, ":policy/") {
			return p, usage(fmt.Sprintf("cannot use --policy-arn %q: it is no policy's ARN", arn), "arn:aws:iam::aws:policy/ReadOnlyAccess, for one")
		}
	}
	p.PolicyARNs = a.opts.policyARNs
	if a.opts.policy != "" {
		p.Policy, err = readPolicy(a.opts.policy)
	}
	return p, err
}

// readPolicy reads a policy document and takes the white space out of it.
func readPolicy(path string) (string, error) {
	cannot := func(why, hint string) error {
		return failure("cannot use the policy "+path+": "+why, hint)
	}
	b, err := os.ReadFile(path)
	switch {
	case err != nil:
		return "", failure("cannot read the policy: "+err.Error(), "")
	case len(b) > maxPolicyFile:
		return "", cannot(fmt.Sprintf("it has %d bytes", len(b)), "a session policy has 2048 characters or fewer")
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil || object == nil {
		where := ""
		if syntax, ok := err.(*json.SyntaxError); ok {
			where = fmt.Sprintf(" (line %d: %v)", 1+bytes.Count(b[:min(int(syntax.Offset), len(b))], []byte("\n")), syntax)
		}
		return "", cannot("it is no JSON object"+where, "")
	}
	var short bytes.Buffer
	if err := json.Compact(&short, b); err != nil {
		return "", cannot(err.Error(), "")
	}
	if n := utf8.RuneCount(short.Bytes()); n > maxPolicy {
		return "", cannot(fmt.Sprintf("it has %d characters, and AWS allows %d", n, maxPolicy), "shorten it, or use --policy-arn")
	}
	return short.String(), nil
}

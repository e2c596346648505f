package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"strings"

	"keyfob/internal/control"
)

func iamPolicyFlags(o *options, fs *flag.FlagSet) {
	fs.BoolVar(&o.all, "all", false, "the policies of the whole chain, as a JSON object by ARN")
	fs.BoolVar(&o.validate, "validate", false, "have IAM Access Analyzer check them, signed as P")
}

func (a *app) policyTrust(in invocation) int    { return a.iamPolicy(in, "trust") }
func (a *app) policyIdentity(in invocation) int { return a.iamPolicy(in, "identity") }

// iamPolicy is `keyfob policy trust` and `keyfob policy identity`. Standard
// output has the document alone, so that it can be given to AWS as it is.
func (a *app) iamPolicy(in invocation, kind string) int {
	what := "make the " + kind + " policy"
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(awsWait, c.MayAsk)
	defer cancel()
	var raw json.RawMessage
	var r control.PolicyResult
	err = a.call(ctx, control.MethodPolicy, control.PolicyParams{Context: c, Kind: kind, Validate: a.opts.validate}, &raw, a.handler("policy"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err == nil && len(r.Documents) == 0 {
		err = failure("cannot "+what+": the profile needs none", "keyfob explain "+quoted(c.Profile))
	}
	if err != nil {
		return a.fail(what, err)
	}
	shown := r.Documents
	var code int
	switch {
	case a.opts.json:
		code = a.printJSON(raw)
	case a.opts.all:
		code = a.printDocuments(shown)
	default:
		shown = shown[len(shown)-1:]
		code = a.printJSON(shown[0].Document)
	}
	if n := len(r.Documents) - len(shown); n > 0 {
		a.notice(fmt.Sprintf("that is the policy of %s; --all prints %d more, for the chain below it", owner(shown[0]), n))
	}
	if a.opts.json {
		return max(code, worstFinding(shown))
	}
	for _, d := range shown {
		for _, n := range d.Notes {
			a.notice(owner(d) + ": " + n)
		}
		for _, f := range d.Findings {
			line := owner(d) + ": " + strings.ToLower(f.Type) + ": " + f.Message
			if f.Path != "" {
				line += " (" + f.Path + ")"
			}
			a.say("keyfob: " + line)
		}
	}
	return max(code, worstFinding(shown))
}

// worstFinding is the exit code for what Access Analyzer found: an error
// means that AWS would not take the policy.
func worstFinding(documents []control.PolicyDocument) int {
	for _, d := range documents {
		for _, f := range d.Findings {
			if f.Type == "ERROR" {
				return exitFailed
			}
		}
	}
	return exitDone
}

// owner names whose policy it is: an ARN where it can be known.
func owner(d control.PolicyDocument) string {
	if d.For != "" {
		return d.For
	}
	return "profile " + d.Profile
}

// printDocuments prints an object of policies by owner, in their order.
func (a *app) printDocuments(documents []control.PolicyDocument) int {
	var b bytes.Buffer
	b.WriteByte('{')
	seen := map[string]bool{}
	for _, d := range documents {
		name := owner(d)
		if seen[name] {
			continue
		}
		if len(seen) > 0 {
			b.WriteByte(',')
		}
		seen[name] = true
		key, err := json.Marshal(name)
		if err != nil {
			return a.fail("print the policies", err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(d.Document)
	}
	b.WriteByte('}')
	return a.printJSON(json.RawMessage(b.Bytes()))
}

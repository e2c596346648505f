package ops

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"keyfob/profiles"
)

// The kinds of policy.
const (
	PolicyTrust    = "trust"    // who may become a role
	PolicyIdentity = "identity" // what the identities that sign may do
)

// PolicyRequest asks for the policies that a chain needs.
type PolicyRequest struct {
	Profile string
	Kind    string // PolicyTrust or PolicyIdentity
	Chain   []profiles.Link
	// User is the ARN of the user whose long-lived pair begins the chain, and
	// Account the pair's account; "" where they are not known.
	User, Account string
	// Token reads the file of a web identity token, for what it says of
	// issuer, audience and subject; nil where it is not to be read.
	Token func(path string) ([]byte, error)
}

// PolicyDocument is one policy of IAM.
type PolicyDocument struct {
	For      string // ARN of the role or user it belongs to, "" where it can't be known
	Profile  string // whose section the link comes from
	Document json.RawMessage
	// Notes are what a person must fill in or know: clauses without a full
	// stop. Never nil.
	Notes []string
}

// Policies makes the policies of a chain, in the order in which credentials
// flow: for PolicyTrust one for each role that somebody must let in, for
// PolicyIdentity one for each identity that signs a call. It calls nobody.
// Errors: one that Is ErrInput where the kind is none; where no link needs one.
func Policies(r PolicyRequest) ([]PolicyDocument, error) {
	c := newChainPolicies(r)
	var docs []PolicyDocument
	switch r.Kind {
	case PolicyTrust:
		for i := range r.Chain {
			if d, ok := c.trust(i); ok {
				docs = append(docs, d)
			}
		}
	case PolicyIdentity:
		for i := range r.Chain {
			if d, ok := c.identity(i); ok {
				docs = append(docs, d)
			}
		}
	default:
		return nil, &inputError{fmt.Sprintf("cannot make a policy of kind %q", r.Kind), "trust, or identity"}
	}
	if len(docs) == 0 {
		return nil, c.none()
	}
	return docs, nil
}

// document is a policy as IAM reads it
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html).
type document struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Principal map[string]any `json:",omitempty"`
	Action    any            // a text, or a list of them
	Resource  any            `json:",omitempty"`
	Condition condition      `json:",omitempty"`
}

// condition is operator -> key -> value.
type condition map[string]map[string]any

func (c condition) set(operator, key string, value any) {
	if c[operator] == nil {
		c[operator] = map[string]any{}
	}
	c[operator][key] = value
}

// few is one value as a text, several as a list.
func few(values []string) any {
	if len(values) == 1 {
		return values[0]
	}
	return values
}

func (p *PolicyDocument) fill(statements ...statement) {
	b, err := json.Marshal(document{"2012-10-17", statements})
	if err != nil {
		panic(err) // texts, lists and maps of texts always marshal
	}
	p.Document = b
}

func (p *PolicyDocument) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// chainPolicies knows of each link of a chain what its session carries.
type chainPolicies struct {
	PolicyRequest
	links []linkFacts
}

// linkFacts are what a link's session carries to the call above it.
type linkFacts struct {
	identity string // source identity; "*" where there is one and its value is not known
	tags     []tag  // transitive tags
	mfa      bool   // the session, or the call itself, carries an MFA code
}

type tag struct{ key, value string }

func newChainPolicies(r PolicyRequest) *chainPolicies {
	c := &chainPolicies{PolicyRequest: r, links: make([]linkFacts, len(r.Chain))}
	var below linkFacts
	for i, l := range r.Chain {
		f := linkFacts{mfa: l.Params["mfa_serial"] != ""}
		switch l.Kind {
		case profiles.KindAssumeRole:
			// Source identity and transitive tags pass on from role to role, a
			// code does not.
			f.identity, f.tags = below.identity, below.tags
			if own := l.Params["source_identity"]; own != "" {
				f.identity = own
			}
			transitive := splitComma(l.Params["transitive_session_tags"])
			for _, t := range tagsOf(l) {
				if slices.Contains(transitive, t.key) {
					f.tags = append(slices.Clone(f.tags), t)
				}
			}
		case profiles.KindRolesAnywhere:
			f.identity = "*" // Roles Anywhere sets it to the certificate's subject
		}
		c.links[i], below = f, f
	}
	return c
}

func tagsOf(l profiles.Link) []tag {
	var tags []tag
	for _, kv := range splitComma(l.Params["session_tags"]) {
		if k, v, ok := strings.Cut(kv, "="); ok {
			tags = append(tags, tag{strings.TrimSpace(k), strings.TrimSpace(v)})
		}
	}
	return tags
}

func splitComma(s string) []string {
	var parts []string
	for _, p := range strings.Split(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			parts = append(parts, p)
		}
	}
	return parts
}

// none says why a chain needs no policy of a kind.
func (c *chainPolicies) none() error {
	last := c.Chain[len(c.Chain)-1]
	switch {
	case c.Kind == PolicyTrust && last.Kind == profiles.KindSSO:
		return fmt.Errorf("cannot make a trust policy for %s: its role is that of the permission set %s, and Identity Center writes it", c.Profile, last.Params["sso_role_name"])
	case c.Kind == PolicyTrust:
		return &hintError{fmt.Sprintf("cannot make a trust policy for %s: no role of IAM is on its chain, which ends in a link of kind %s", c.Profile, last.Kind), "keyfob policy identity " + c.Profile}
	}
	return &hintError{fmt.Sprintf("cannot make an identity policy for %s: nothing on its chain signs a call for a role", c.Profile), "keyfob policy trust " + c.Profile}
}

type hintError struct{ msg, help string }

func (e *hintError) Error() string { return e.msg }
func (e *hintError) Hint() string  { return e.help }

// base is the index of the identity that signs link i: sessions of the same
// user in between are the user.
func (c *chainPolicies) signer(i int) int {
	for i--; i >= 0 && c.Chain[i].Kind == profiles.KindSessionToken; i-- {
	}
	return i
}

// partition is that of the chain's ARNs or region.
func (c *chainPolicies) partition(i int) string {
	for _, arn := range []string{c.Chain[i].RoleARN, c.Chain[i].Params["principal_arn"], c.Chain[i].Params["login_session"], c.User} {
		if p := partitionOf(arn); p != "" {
			return p
		}
	}
	for _, l := range c.Chain {
		if p := partitionOf(l.RoleARN); p != "" {
			return p
		}
	}
	region := c.Chain[i].Params["sso_region"]
	if region == "" {
		region = c.Chain[i].Client.Region
	}
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// accountIn is the account of an ARN, "" where there is none.
func accountIn(arn string) string {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[0] != "arn" {
		return ""
	}
	return p[4]
}

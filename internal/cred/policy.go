package cred

import (
	"encoding/json"
	"fmt"
)

// SessionPolicy narrows what a role's session may do: the session has what
// both the role and the policy allow
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies.html#policies_session).
type SessionPolicy struct {
	Inline string   `json:"inline,omitempty"` // a JSON policy document
	ARNs   []string `json:"arns,omitempty"`   // managed policies, ten at most
}

// Encode is the policy as Request.Policy has it, "" for none: one text for
// one policy, so that it can be part of a key.
func (p SessionPolicy) Encode() string {
	if p.Inline == "" && len(p.ARNs) == 0 {
		return ""
	}
	b, err := json.Marshal(p)
	if err != nil { // strings always marshal
		panic(err)
	}
	return string(b)
}

// DecodePolicy is the reverse of Encode.
func DecodePolicy(s string) (SessionPolicy, error) {
	var p SessionPolicy
	if s == "" {
		return p, nil
	}
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return p, fmt.Errorf("cannot read a session policy: %w", err)
	}
	return p, nil
}

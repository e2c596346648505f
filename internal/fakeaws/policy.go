package fakeaws

import (
	"encoding/json"
	"errors"
	"strings"
)

// policy is a session policy: statements of Effect, Action and Resource.
// Conditions are not evaluated: a statement with one never allows and always
// denies.
type policy struct {
	statements []statement
}

type statement struct {
	deny, conditional  bool
	actions, resources []string
}

// parsePolicy reads a policy document. A document that is no JSON or has no
// usable statement is an error.
func parsePolicy(doc string) (*policy, error) {
	var in struct {
		Version   string
		Statement json.RawMessage
	}
	if err := json.Unmarshal([]byte(doc), &in); err != nil {
		return nil, err
	}
	type entry struct {
		Effect               string
		Action, Resource     oneOrMore
		NotAction, Condition json.RawMessage
	}
	var list []entry
	if err := json.Unmarshal(in.Statement, &list); err != nil {
		var one entry
		if err := json.Unmarshal(in.Statement, &one); err != nil {
			return nil, errors.New("no statement")
		}
		list = []entry{one}
	}
	p := &policy{}
	for _, e := range list {
		if e.Effect != "Allow" && e.Effect != "Deny" || len(e.Action) == 0 && e.NotAction == nil {
			return nil, errors.New("a statement without Effect or Action")
		}
		for i := range e.Action {
			e.Action[i] = strings.ToLower(e.Action[i]) // actions are case-insensitive
		}
		p.statements = append(p.statements, statement{
			deny: e.Effect == "Deny", conditional: e.Condition != nil || e.NotAction != nil,
			actions: e.Action, resources: e.Resource,
		})
	}
	return p, nil
}

// with adds a managed policy to session policies (nil: none so far). Those of
// AWS that only read are known; any other ARN allows everything.
func (p *policy) with(arn string) *policy {
	actions := []string{"*"}
	switch arn[strings.LastIndexByte(arn, '/')+1:] {
	case "ReadOnlyAccess", "ViewOnlyAccess", "SecurityAudit":
		actions = []string{"*:get*", "*:list*", "*:describe*"}
	}
	if p == nil {
		p = &policy{}
	}
	p.statements = append(p.statements, statement{actions: actions, resources: []string{"*"}})
	return p
}

// allows judges an action. A nil policy allows everything.
func (p *policy) allows(action, resource string) bool {
	if p == nil {
		return true
	}
	ok := false
	for _, st := range p.statements {
		if !matchAny(st.actions, strings.ToLower(action)) || !matchAny(st.resources, resource) {
			continue
		}
		if st.deny {
			return false
		}
		ok = ok || !st.conditional
	}
	return ok
}

// oneOrMore is a JSON string or list of strings.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

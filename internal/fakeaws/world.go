package fakeaws

import (
	"fmt"
	"os"
)

// World is what a state file holds: the users and roles to begin with.
type World struct {
	Users []UserSpec `json:"users"`
	Roles []RoleSpec `json:"roles"`
	// SignInWorld holds the sign-in services: their keys stand beside users
	// and roles.
	SignInWorld
	// Settings are applied at the start.
	Settings AdminSettings `json:"settings"`
}

// DefaultWorld is a person with a key pair and an MFA device in
// DefaultAccount, an Identity Center with three roles, an OpenID and a SAML
// provider that the role "federated" trusts; in OtherAccount a chain of two roles ("entry" trusts the
// first account, "deploy" trusts entry alone) and a role "admin" that wants
// an MFA code.
func DefaultWorld() World {
	federated := "arn:aws:iam::" + OtherAccount + ":role/federated"
	entry := "arn:aws:iam::" + OtherAccount + ":role/entry"
	return World{
		Users: []UserSpec{{Name: "alice", MFA: []MFASpec{{}}}},
		Roles: []RoleSpec{
			{ARN: entry, MaxSessionDuration: 43200, Trust: []Trust{{Principals: []string{DefaultAccount}}}},
			{ARN: "arn:aws:iam::" + OtherAccount + ":role/deploy", MaxSessionDuration: 43200, Trust: []Trust{{Principals: []string{entry}}}},
			{ARN: "arn:aws:iam::" + OtherAccount + ":role/admin", MaxSessionDuration: 43200, Trust: []Trust{{Principals: []string{DefaultAccount}, MFA: true}}},
			{ARN: federated, MaxSessionDuration: 43200, Trust: []Trust{{Federated: []string{"*"}}}},
		},
		SignInWorld: SignInWorld{
			SSO: []SSOSpec{{Accounts: []SSOAccount{
				{ID: DefaultAccount, Name: "people", Roles: []SSORole{{Name: "ReadOnly"}}},
				{ID: OtherAccount, Name: "work", Roles: []SSORole{{Name: "Administrator"}, {Name: "ReadOnly"}}},
			}}},
			OIDC: []OIDCSpec{{}},
			SAML: []SAMLSpec{{Roles: []string{federated}}},
		},
	}
}

// LoadWorld reads a state file. Unknown keys are errors.
func LoadWorld(path string) (World, error) {
	f, err := os.Open(path)
	if err != nil {
		return World{}, fmt.Errorf("cannot read the state: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	var w World
	if err := readJSON(f, &w); err != nil {
		return World{}, fmt.Errorf("cannot read the state %s: %w", path, err)
	}
	return w, nil
}

// Populate adds a world to the server and returns what its users got and the
// roles' ARNs.
func (s *Server) Populate(w World) ([]Created, []string, error) {
	users, roles := []Created{}, []string{}
	for _, u := range w.Users {
		k, err := s.addUser(u)
		if err != nil {
			return nil, nil, err
		}
		users = append(users, createdOf(k))
	}
	for _, r := range w.Roles {
		arn, err := s.addRole(r)
		if err != nil {
			return nil, nil, err
		}
		roles = append(roles, arn)
	}
	if err := s.addSignIn(w.SignInWorld); err != nil {
		return nil, nil, err
	}
	return users, roles, s.apply(w.Settings)
}

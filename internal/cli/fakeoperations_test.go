//go:build !windows

package cli

import (
	"encoding/json"

	"keyfob/internal/control"
)

// fakeOperations answers rotate, policy and doctor. What it says goes by the
// profile.
func fakeOperations(r control.Request, profile string) (any, *control.Error) {
	switch r.Method {
	case control.MethodRotate:
		var p control.RotateParams
		_ = json.Unmarshal(r.Params, &p)
		key := control.RotatedKey{Profile: profile, User: "arn:aws:iam::123456789012:user/u", Old: "AKIAOLD", New: "AKIANEW", Also: []string{"b"}, Warnings: []string{"the old key is used elsewhere"}}
		switch {
		case p.All && p.Due == 36500*24*3600:
			return control.RotateResult{Keys: []control.RotatedKey{}}, nil
		case p.All:
			key.Profile = "old"
			return control.RotateResult{Keys: []control.RotatedKey{key, {Profile: "young", Skipped: "it is 3 days old"},
				{Profile: "stuck", Old: "AKIASTUCK", Error: "cannot create a key: there are two", Hint: "delete one"}}}, nil
		}
		return control.RotateResult{Keys: []control.RotatedKey{key}}, nil
	case control.MethodPolicy:
		var p control.PolicyParams
		_ = json.Unmarshal(r.Params, &p)
		entry := control.PolicyDocument{For: "arn:aws:iam::123456789012:role/entry", Profile: "entry", Document: json.RawMessage(`{"Version":"2012-10-17","Statement":[]}`)}
		own := control.PolicyDocument{For: "arn:aws:iam::123456789012:role/" + profile, Profile: profile,
			Document: json.RawMessage(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"` + p.Kind + `<>"}]}`), Notes: []string{"fill in the external id"}}
		if p.Validate {
			own.Findings = []control.PolicyFinding{{Type: "SUGGESTION", Code: "X", Message: "shorter", Path: "Statement[0]"}}
			if profile == "wrong" {
				own.Findings = append(own.Findings, control.PolicyFinding{Type: "ERROR", Code: "Y", Message: "no such action"})
			}
		}
		switch profile {
		case "keys":
			return control.PolicyResult{Documents: []control.PolicyDocument{}}, nil
		case "unknown":
			own.For = ""
		}
		return control.PolicyResult{Documents: []control.PolicyDocument{entry, own}}, nil
	case control.MethodDoctor:
		var p control.DoctorParams
		_ = json.Unmarshal(r.Params, &p)
		checks := []control.Check{
			{ID: "files.config", Group: "files", State: control.CheckOK, Message: "the daemon has read it"},
			{ID: "vault.unlocked", Group: "vault", State: control.CheckOK, Message: "the vault is open"},
			{ID: "clock", Group: "network", State: control.CheckWarning, Message: "the clock is 3m off", Hint: "set the clock"},
			{ID: "future", Group: "from-the-future", State: control.CheckSkipped, Message: "\x1b[31mnot judged"},
		}
		if profile == "bad" {
			checks = append(checks, control.Check{ID: "profile.works", Group: "profile", State: control.CheckFailed, About: "bad", Message: "AWS refuses", File: "/c", Line: 3, Fix: "keyfob login bad"})
		}
		return control.DoctorResult{Checks: checks}, nil
	}
	return nil, &control.Error{Code: control.CodeProtocol, Message: "cannot do " + r.Method}
}

//go:build !windows

package cli

import (
	"encoding/json"

	"keyfob/internal/control"
)

// fakeToken stands in the console's address: it must be shown to nobody who
// did not ask for it.
const fakeToken = "canaryTOKENcanary"

// fakeIdentity answers the methods about the console, who one is, and MFA
// devices.
func fakeIdentity(r control.Request, profile string) (any, *control.Error) {
	const serial = "arn:aws:iam::123456789012:mfa/u"
	switch r.Method {
	case control.MethodConsole:
		out := control.ConsoleResult{
			URL:        "https://signin.aws.amazon.com/federation?Action=login&Destination=https%3A%2F%2Fconsole.aws.amazon.com%2F&Issuer=keyfob&SigninToken=" + fakeToken,
			SwitchRole: "https://signin.aws.amazon.com/switchrole?account=123456789012&displayName=" + profile + "&roleName=r",
		}
		switch profile {
		case "user":
			out.SwitchRole, out.Warning = "", "it ends\nsoon"
		case "p-odd":
			out.URL = "file:///" + fakeToken
		}
		return out, nil
	case control.MethodWhoami:
		out := map[string]any{"profile": profile, "arn": "arn:aws:sts::123456789012:assumed-role/r/\x1b[31mu", "account_id": "123456789012", "account_alias": "acme", "user_id": "AROAX:u",
			"region": "eu-west-1", "source": "static-keys", "expiration": "2031-01-02T03:04:05Z", "warnings": []string{}, "from_the_future": true}
		if profile == "user" {
			out["warnings"] = []string{"the access key AKIAX of user u is 200 days old: keyfob rotate user", "user u has no MFA device"}
			delete(out, "account_alias")
		}
		return out, nil
	}
	var p control.MFAParams
	_ = json.Unmarshal(r.Params, &p)
	switch {
	case p.Serial == "":
		p.Serial = serial
	case p.Serial != serial:
		return nil, &control.Error{Code: control.CodeNotFound, Message: "cannot find a seed of " + p.Serial + " in the vault", Hint: "keyfob mfa list"}
	}
	switch r.Method {
	case control.MethodMFAAdd:
		if p.Seed != "JBSWY3DPEHPK3PXP" {
			return nil, &control.Error{Code: control.CodeFailed, Message: "cannot keep the seed of " + p.Serial + ": it is not base32"}
		}
		return control.MFAAddResult{Serial: p.Serial, Codes: []string{"111111", "222222"}}, nil
	case control.MethodMFAList:
		if profile == "none" {
			return control.MFAListResult{}, nil
		}
		return control.MFAListResult{Devices: []control.MFADevice{{Serial: serial, Added: "2026-01-02T03:04:05Z"}, {Serial: "arn:aws:iam::1:mfa/\x1b[31mv"}}}, nil
	case control.MethodMFACode:
		return control.MFACodeResult{Serial: p.Serial, Code: "123456", Seconds: 17}, nil
	}
	return control.Empty{}, nil
}

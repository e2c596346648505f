//go:build !windows

package cli

import (
	"encoding/json"
	"strings"

	"keyfob/internal/control"
)

// fakeWizard answers what configure, import and certificate ask; ok is false
// for other methods.
func (d *fake) fakeWizard(r control.Request, profile string) (result any, e *control.Error, ok bool) {
	switch r.Method {
	case control.MethodSSOAccounts:
		var p control.SSOAccountsParams
		_ = json.Unmarshal(r.Params, &p)
		if strings.Contains(p.StartURL, "empty") {
			return control.SSOAccountsResult{Accounts: []control.SSOAccount{}}, nil, true
		}
		return control.SSOAccountsResult{Accounts: []control.SSOAccount{
			{ID: "222222222222", Name: "Prod (EU)", Roles: []string{"Admin", "ReadOnly"}},
			{ID: "111111111111", Name: "Dev\x1b[31m", Roles: []string{"Admin"}},
			{ID: "333333333333", Roles: []string{"Admin"}},
		}}, nil, true
	case control.MethodMFADevices:
		switch profile {
		case "none":
			return control.MFADevicesResult{User: "arn:aws:iam::123456789012:user/u", Serials: []string{}, Others: 1}, nil, true
		case "blind":
			return nil, &control.Error{Code: control.CodeFailed, Message: "cannot list the MFA devices: AccessDenied"}, true
		}
		return control.MFADevicesResult{User: "arn:aws:iam::123456789012:user/u", Serials: []string{"arn:aws:iam::123456789012:mfa/u"}}, nil, true
	case control.MethodForeignKeys:
		return control.ForeignKeysResult{Names: []string{"dev", "prod"}}, nil, true
	case control.MethodImportKey:
		if !strings.Contains(string(r.Params), `"passphrase":"open sesame"`) {
			return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot read dev of aws-vault from file: wrong passphrase"}, true
		}
		return control.AddResult{Checked: true, ARN: "arn:aws:iam::123456789012:user/u", AccountID: "123456789012"}, nil, true
	case control.MethodCertificateAdd:
		var p control.CertificateParams
		_ = json.Unmarshal(r.Params, &p)
		switch {
		case p.Name == "have" && !p.Force:
			return nil, &control.Error{Code: control.CodeExists, Message: "cannot add the certificate: the vault has one named have", Hint: "--force replaces it"}, true
		case p.Name == "":
			return control.CertificateEntry{Where: p.Where}, nil, true
		}
		return control.CertificateEntry{Name: p.Name, Subject: "CN=host", Serial: "12", NotAfter: "2031-01-02T03:04:05Z", Warning: "it ends in 3 days"}, nil, true
	case control.MethodCertificateList:
		return control.CertificateListResult{Certificates: []control.CertificateEntry{
			{Name: "host", Subject: "CN=host\x1b[31m", Serial: "12", NotAfter: "2031-01-02T03:04:05Z", Warning: "it ends in 3 days"}, {Where: "/k.pem"}}}, nil, true
	case control.MethodCertificateRemove:
		if strings.Contains(string(r.Params), `"nothing"`) {
			return nil, &control.Error{Code: control.CodeNotFound, Message: "cannot remove the certificate nothing: the vault has none"}, true
		}
		return control.Empty{}, nil, true
	}
	return nil, nil, false
}

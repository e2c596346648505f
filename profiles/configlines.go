package profiles

import "strings"

// sourceKeys are settings that choose or shape credentials, or that only
// keyfob reads: a copy of a profile for a child that gets its credentials
// from keyfob has none of them.
var sourceKeys = map[string]bool{
	"aws_access_key_id": true, "aws_secret_access_key": true, "aws_session_token": true, "aws_security_token": true, "aws_account_id": true,
	"role_arn": true, "source_profile": true, "credential_source": true, "credential_process": true, "web_identity_token_file": true,
	"login_session": true, "external_id": true, "mfa_serial": true, "mfa_process": true, "role_session_name": true, "duration_seconds": true,
	"source_identity": true, "session_tags": true, "transitive_session_tags": true, "session_policy": true, "session_policy_arns": true,
	"principal_arn": true, "protected": true, "include_profile": true, "parent_profile": true,
	"services": true, // written anew, with its section
}

var sourcePrefixes = []string{"sso_", "oidc_", "saml_", "roles_anywhere_", "ec2_metadata_"}

func isSourceKey(name string) bool {
	if sourceKeys[name] {
		return true
	}
	for _, p := range sourcePrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// ConfigLines returns the profile's other settings as they won, as the body
// of a [default] section of a config file: no credentials and nothing that
// chooses them. Where the profile has a services section, it follows at the
// end, so nothing else may be appended to the section.
func (p *Profile) ConfigLines() string {
	var b, services strings.Builder
	parent, service := "", ""
	for _, s := range p.Settings {
		if s.Value == "" || s.Value == Redacted || isSourceKey(s.Name) {
			continue
		}
		out, name := &b, s.Name
		open := &parent
		if rest, ok := strings.CutPrefix(name, "services."); ok {
			out, name, open = &services, rest, &service
		}
		if outer, inner, ok := strings.Cut(name, "."); ok {
			if !validName(outer) || !validName(inner) || strings.ContainsAny(s.Value, "\n\r") {
				continue
			}
			if *open != outer {
				out.WriteString(outer + " =\n")
				*open = outer
			}
			out.WriteString("  " + inner + " = " + s.Value + "\n")
			continue
		}
		*open = ""
		if !validName(name) || !fitsOneLine(strings.SplitN(s.Value, "\n", 2)[0]) {
			continue
		}
		out.WriteString(name + " = " + strings.ReplaceAll(s.Value, "\n", "\n  ") + "\n")
	}
	if services.Len() > 0 {
		b.WriteString("services = keyfob\n\n[services keyfob]\n" + services.String())
	}
	return b.String()
}

// fitsOneLine reports whether a value reads back as it is.
func fitsOneLine(v string) bool {
	return cutComment("x = "+v) == "x = "+v && strings.TrimSpace(v) == v && !strings.ContainsRune(v, '\r')
}

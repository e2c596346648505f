package setup

import (
	"fmt"
	"slices"
	"strings"

	"keyfob/profiles"
)

// Setting is one line of a profile.
type Setting struct{ Key, Value string }

// Profile is what a profile is to be.
type Profile struct {
	Name string
	// Settings go to keyfob's profiles file: beside a credential_process in
	// the AWS config, SDKs would obey them themselves.
	Settings []Setting
	Region   string // goes to the AWS config, whose readers want it; "" leaves it
	// Keep moves what the AWS config says of the profile's source, rather
	// than replace it.
	Keep bool
	// Drop are settings that go, wherever they stand.
	Drop []string
	// Line is the value of its credential_process in the AWS config.
	Line string
}

// Session is a section [sso-session NAME].
type Session struct{ Name, StartURL, Region, Scopes string }

// sources are the settings that say where a profile's credentials come from.
var sources = []string{
	"role_arn", "source_profile", "credential_source", "web_identity_token_file", "credential_process", "login_session",
	"sso_session", "sso_account_id", "sso_role_name", "sso_start_url", "sso_region", "sso_registration_scopes",
	"oidc_issuer", "oidc_client_id", "oidc_scopes", "oidc_redirect_port",
	"saml_url", "saml_process", "principal_arn",
	"roles_anywhere_trust_anchor_arn", "roles_anywhere_profile_arn", "roles_anywhere_certificate", "roles_anywhere_private_key", "roles_anywhere_intermediates",
}

// modifiers say how a session is made, whatever its source; they stay with
// the profile when its source changes.
var modifiers = []string{
	"external_id", "mfa_serial", "mfa_process", "role_session_name", "duration_seconds", "source_identity",
	"session_tags", "transitive_session_tags", "session_policy", "session_policy_arns",
}

// SectionName is the header of a profile in the AWS config and in keyfob's
// own file.
func SectionName(profile string) string {
	if profile == "default" {
		return "default"
	}
	return "profile " + profile
}

// Make plans the change that sets profiles up: their sources in keyfob's own
// file, their credential_process in the AWS config, and out of the latter
// whatever would have SDKs go another way. notes are sentences about what
// was moved or taken out.
func Make(title string, own, config *File, session *Session, all []Profile) (c *Change, notes []string, err error) {
	var ownEdits, configEdits []profiles.Edit
	if session != nil {
		if ownEdits, err = session.edits(own, config); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range all {
		section := SectionName(p.Name)
		there, err := config.Section(section)
		if err != nil {
			return nil, nil, err
		}
		mine, err := own.Section(section)
		if err != nil {
			return nil, nil, err
		}
		wanted := slices.Clone(p.Settings)
		has := func(key string) bool {
			return slices.ContainsFunc(wanted, func(s Setting) bool { return s.Key == key })
		}
		var moved, out []string
		for _, key := range append(slices.Clone(sources), modifiers...) {
			old, ok := there[key]
			if !ok || key == "credential_process" && ours(old.Value, p.Line) {
				continue
			}
			configEdits = append(configEdits, profiles.Edit{Section: section, Key: key, Delete: true})
			_, shadowed := mine[key]
			if slices.Contains(p.Drop, key) {
				out = append(out, key)
				continue
			}
			switch carry := p.Keep || slices.Contains(modifiers, key); {
			case old.Block:
				return nil, nil, fmt.Errorf("cannot move %s (%s:%d): it has settings below it", key, config.Path, old.Line)
			case carry && !has(key) && !shadowed:
				wanted = append(wanted, Setting{key, old.Value})
				moved = append(moved, key)
			case has(key) || shadowed:
				moved = append(moved, key)
			default:
				out = append(out, key)
			}
		}
		for _, s := range wanted {
			ownEdits = append(ownEdits, profiles.Edit{Section: section, Key: s.Key, Value: s.Value})
		}
		for _, key := range p.Drop {
			ownEdits = append(ownEdits, profiles.Edit{Section: section, Key: key, Delete: true})
		}
		if !p.Keep {
			for _, key := range sources {
				if _, ok := mine[key]; ok && !has(key) {
					ownEdits = append(ownEdits, profiles.Edit{Section: section, Key: key, Delete: true})
				}
			}
		}
		configEdits = append(configEdits, profiles.Edit{Section: section, Key: "credential_process", Value: p.Line})
		if p.Region != "" {
			configEdits = append(configEdits, profiles.Edit{Section: section, Key: "region", Value: p.Region})
		}
		if len(moved) > 0 {
			notes = append(notes, fmt.Sprintf("%s of %s moves from %s to %s: beside a credential_process, SDKs would obey it themselves", list(moved), p.Name, config.Path, own.Path))
		}
		if len(out) > 0 {
			notes = append(notes, fmt.Sprintf("%s of %s is taken out of %s: it is not for this kind of source", list(out), p.Name, config.Path))
		}
	}
	// keyfob's own file first: where it ends in between, the AWS config
	// still works as it did.
	c, err = Plan(title, []Edits{{own, ownEdits}, {config, configEdits}})
	return c, notes, err
}

// HasSource reports whether settings say where credentials come from, other
// than from keyfob.
func HasSource(there map[string]profiles.TextSetting) bool {
	for _, key := range sources {
		if s, ok := there[key]; ok && !(key == "credential_process" && ours(s.Value, "")) {
			return true
		}
	}
	return false
}

// ours reports whether a credential_process is keyfob's, which is replaced
// and not moved.
func ours(line, wanted string) bool {
	if line == wanted {
		return true
	}
	return strings.Contains(line, "credential-process") && strings.Contains(line, "keyfob")
}

func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// edits writes the section into keyfob's own file, unless the AWS config
// says the same. One of the name that says something else is not changed:
// other profiles may use it.
func (s *Session) edits(own, config *File) ([]profiles.Edit, error) {
	section := "sso-session " + s.Name
	want := []Setting{{"sso_start_url", s.StartURL}, {"sso_region", s.Region}}
	if s.Scopes != "" {
		want = append(want, Setting{"sso_registration_scopes", s.Scopes})
	}
	for _, f := range []*File{own, config} {
		there, err := f.Section(section)
		if err != nil {
			return nil, err
		}
		if len(there) == 0 {
			continue
		}
		for _, w := range want {
			if got, ok := there[w.Key]; ok && !same(w.Key, got.Value, w.Value) {
				return nil, withHint(fmt.Errorf("cannot use the name %s: [%s] of %s has another %s (line %d)", s.Name, section, f.Path, w.Key, got.Line), "--sso-session takes another name")
			} else if !ok && w.Key != "sso_registration_scopes" {
				return nil, withHint(fmt.Errorf("cannot use the name %s: [%s] of %s has no %s", s.Name, section, f.Path, w.Key), "--sso-session takes another name")
			}
		}
		if _, ok := there["sso_registration_scopes"]; s.Scopes == "" || ok {
			return nil, nil
		}
	}
	var edits []profiles.Edit
	for _, w := range want {
		edits = append(edits, profiles.Edit{Section: section, Key: w.Key, Value: w.Value})
	}
	return edits, nil
}

func same(key, a, b string) bool {
	if key == "sso_start_url" {
		return strings.TrimRight(a, "/") == strings.TrimRight(b, "/")
	}
	return a == b
}

// Lines plans to give profiles their credential_process in the AWS config,
// and nothing else.
func Lines(title string, config *File, all []Profile) (*Change, error) {
	var edits []profiles.Edit
	for _, p := range all {
		edits = append(edits, profiles.Edit{Section: SectionName(p.Name), Key: "credential_process", Value: p.Line})
	}
	return Plan(title, []Edits{{config, edits}})
}

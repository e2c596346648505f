package rolesanywhere

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// settings are a link's parameters.
type settings struct {
	anchor, profile, role   arn
	region                  string
	sessionName             string // "" leaves it to AWS: the serial in hex
	duration                int    // seconds
	certificate, key, chain location
}

// arn is arn:partition:service:region:account:resource.
type arn struct{ text, partition, service, region, account, resource string }

func parseARN(s string) (arn, bool) {
	f := strings.SplitN(s, ":", 6)
	if len(f) != 6 || f[0] != "arn" || f[1] == "" || f[5] == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return arn{text: s}, false
	}
	return arn{text: s, partition: f[1], service: f[2], region: f[3], account: f[4], resource: f[5]}, true
}

// A kind of place where a certificate or a key can be.
type placeKind int

const (
	nowhere placeKind = iota
	inFile
	inVault
	onToken
)

// location is where a certificate or a key is.
type location struct {
	kind    placeKind
	name    string // the path, the name in the vault, or the URI
	setting string // the setting that names it
}

// String names the place, without a PIN.
func (l location) String() string {
	switch l.kind {
	case inVault:
		return vaultPrefix + l.name
	case onToken:
		path, _, _ := strings.Cut(l.name, "?")
		return path
	}
	return l.name
}

const (
	vaultPrefix  = "vault:"
	pkcs11Prefix = "pkcs11:"
)

func locate(link profiles.Link, setting string) (location, error) {
	l := location{kind: inFile, name: link.Params[setting], setting: setting}
	switch {
	case l.name == "":
		l.kind = nowhere
	case strings.HasPrefix(l.name, vaultPrefix):
		l.kind, l.name = inVault, l.name[len(vaultPrefix):]
		if !legalRecord(l.name) {
			return l, unusable(link.Profile, fmt.Sprintf("%s = %q names no certificate of the vault", setting, l), "vault:NAME, with a name of letters, digits and _.@-")
		}
	case strings.HasPrefix(l.name, pkcs11Prefix):
		l.kind = onToken
		if _, err := parseURI(l.name); err != nil {
			return l, unusable(link.Profile, fmt.Sprintf("%s is no PKCS #11 URI: %v", setting, err), "pkcs11:token=LABEL;object=NAME, as RFC 7512 has it")
		}
	case !filepath.IsAbs(l.name):
		return l, unusable(link.Profile, fmt.Sprintf("%s = %q is no absolute path", setting, l.name), "")
	}
	return l, nil
}

var (
	regionName  = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)
	accountID   = regexp.MustCompile(`^[0-9]{12}$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

const (
	settingAnchor      = "roles_anywhere_trust_anchor_arn"
	settingProfile     = "roles_anywhere_profile_arn"
	settingCertificate = "roles_anywhere_certificate"
	settingKey         = "roles_anywhere_private_key"
	settingChain       = "roles_anywhere_intermediates"
)

// readSettings checks what can be checked without reading a file.
func readSettings(link profiles.Link) (settings, error) {
	s := settings{duration: 3600}
	if link.Kind != profiles.KindRolesAnywhere {
		return s, unusable(link.Profile, "a link of kind "+string(link.Kind)+" is none of package rolesanywhere", "")
	}
	bad := func(format string, args ...any) (settings, error) {
		return s, unusable(link.Profile, fmt.Sprintf(format, args...), "")
	}
	var ok bool
	if s.anchor, ok = parseARN(link.Params[settingAnchor]); !ok || s.anchor.service != "rolesanywhere" || !strings.HasPrefix(s.anchor.resource, "trust-anchor/") {
		return bad("%s = %q is not the ARN of a trust anchor, arn:aws:rolesanywhere:REGION:ACCOUNT:trust-anchor/ID", settingAnchor, s.anchor.text)
	}
	if s.profile, ok = parseARN(link.Params[settingProfile]); !ok || s.profile.service != "rolesanywhere" || !strings.HasPrefix(s.profile.resource, "profile/") {
		return bad("%s = %q is not the ARN of a Roles Anywhere profile, arn:aws:rolesanywhere:REGION:ACCOUNT:profile/ID", settingProfile, s.profile.text)
	}
	role := link.Params["role_arn"]
	if role == "" {
		role = link.RoleARN
	}
	if s.role, ok = parseARN(role); !ok || s.role.service != "iam" || !accountID.MatchString(s.role.account) || !strings.HasPrefix(s.role.resource, "role/") {
		return bad("role_arn = %q is not the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME", role)
	}
	switch {
	case !regionName.MatchString(s.anchor.region):
		return bad("%s = %q names no region", settingAnchor, s.anchor.text)
	case s.anchor.region != s.profile.region:
		return s, unusable(link.Profile, fmt.Sprintf("the trust anchor is in region %s and the Roles Anywhere profile in %s, and both must be in one", s.anchor.region, s.profile.region),
			"correct "+settingAnchor+" or "+settingProfile)
	case s.anchor.partition != s.profile.partition || s.anchor.partition != s.role.partition:
		return bad("trust anchor, Roles Anywhere profile and role are in different partitions (%s, %s and %s)", s.anchor.partition, s.profile.partition, s.role.partition)
	}
	s.region = s.anchor.region
	if d := link.Params["duration_seconds"]; d != "" {
		n, err := strconv.Atoi(d)
		if err != nil || n < 900 || n > 43200 {
			return bad("duration_seconds = %q is no number from 900 to 43200", d)
		}
		s.duration = n
	}
	if s.sessionName = link.Params["role_session_name"]; s.sessionName != "" && !sessionName.MatchString(s.sessionName) {
		return bad("role_session_name = %q is not 2 to 64 letters, digits and +=,.@_-", s.sessionName)
	}
	for _, p := range []string{"session_policy", "session_policy_inline", "session_policy_arns"} {
		if link.Params[p] != "" {
			// left out, the session would be wider than what was asked for
			return s, unusable(link.Profile, "Roles Anywhere takes no session policy with a request, and "+strings.TrimSuffix(p, "_inline")+" is set",
				"set it in the Roles Anywhere profile, or in a profile above that has this one as source_profile")
		}
	}
	for setting, to := range map[string]*location{settingCertificate: &s.certificate, settingKey: &s.key, settingChain: &s.chain} {
		var err error
		if *to, err = locate(link, setting); err != nil {
			return s, err
		}
	}
	switch {
	case s.certificate.kind == nowhere:
		return bad("%s is missing", settingCertificate)
	case s.chain.kind == onToken:
		return bad("%s must be a file, or in the vault", settingChain)
	}
	return s, nil
}

// settingsError is a profile, or a certificate, that can't be used as it is.
type settingsError struct {
	msg, help string
	err       error
}

func (e *settingsError) Error() string        { return e.msg }
func (e *settingsError) Hint() string         { return e.help }
func (e *settingsError) Unwrap() error        { return e.err }
func (e *settingsError) Is(target error) bool { return target == cred.ErrConfig }

func unusable(profile, why, help string) error {
	return &settingsError{msg: "cannot use profile " + profile + ": " + why, help: help}
}

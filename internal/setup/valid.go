package setup

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"keyfob/profiles"
)

const (
	digits  = "0123456789"
	lower   = "abcdefghijklmnopqrstuvwxyz"
	letters = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// only reports whether s has no bytes but those of set.
func only(s, set string) bool { return strings.Trim(s, set) == "" }

// arn splits an ARN with an account; ok is false where it is none.
func arn(s string) (service, resource string, ok bool) {
	f := strings.SplitN(s, ":", 6)
	if len(f) < 6 || f[0] != "arn" || !strings.HasPrefix(f[1], "aws") || !only(f[1], lower+"-") ||
		f[2] == "" || !only(f[2], lower+digits+"-") || !only(f[3], lower+digits+"-") || Account(f[4]) != nil || f[5] == "" {
		return "", "", false
	}
	return f[2], f[5], !strings.ContainsFunc(f[5], func(r rune) bool { return r < '!' || r > '~' })
}

// ARN checks for the ARN of a service's resource whose last part begins with
// one of the prefixes: ARN("iam", "role/"). example is shown where it is none.
func ARN(example, service string, prefixes ...string) func(string) error {
	return func(s string) error {
		if of, resource, ok := arn(s); ok && of == service {
			for _, p := range prefixes {
				if strings.HasPrefix(resource, p) && len(resource) > len(p) {
					return nil
				}
			}
		}
		return fmt.Errorf("it has the form %s", example)
	}
}

// Checks of answers.
var (
	RoleARN        = ARN("arn:aws:iam::123456789012:role/NAME", "iam", "role/")
	SAMLProvider   = ARN("arn:aws:iam::123456789012:saml-provider/NAME", "iam", "saml-provider/")
	TrustAnchorARN = ARN("arn:aws:rolesanywhere:eu-west-1:123456789012:trust-anchor/ID", "rolesanywhere", "trust-anchor/")
	AnywhereARN    = ARN("arn:aws:rolesanywhere:eu-west-1:123456789012:profile/ID", "rolesanywhere", "profile/")
	mfaARN         = ARN("arn:aws:iam::123456789012:mfa/NAME", "iam", "mfa/")
)

// MFASerial checks for a device: an ARN, or a hardware device's serial number.
func MFASerial(s string) error {
	if strings.HasPrefix(s, "arn:") {
		return mfaARN(s)
	}
	if len(s) < 9 || len(s) > 256 || !only(s, digits+letters+"=/:,.@-_") {
		return errors.New("it is the device's ARN, as arn:aws:iam::123456789012:mfa/NAME, or a hardware device's serial number")
	}
	return nil
}

// Region checks for a region's name.
func Region(s string) error {
	f := strings.Split(s, "-")
	last := len(f) - 1
	good := last >= 2 && len(f[0]) >= 2 && f[last] != "" && len(f[last]) <= 2 && only(f[last], digits)
	for _, word := range f[:last] {
		good = good && word != "" && only(word, lower)
	}
	if !good {
		return errors.New("it is a region, as eu-west-1")
	}
	return nil
}

// Account checks for an account's number.
func Account(s string) error {
	if len(s) != 12 || !only(s, digits) {
		return errors.New("it is an account's number, twelve digits")
	}
	return nil
}

// URL checks for an https address; http is for this machine alone.
func URL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !local(u.Hostname())) {
		return errors.New("it is an address that begins with https://")
	}
	return nil
}

func local(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }

// Name checks for the name of a profile or an sso-session.
func Name(s string) error {
	if !profiles.ValidName(s) || len(s) > 200 {
		return errors.New("a name has letters, digits and _-/.%@:+")
	}
	return nil
}

// Duration checks for a session's length in seconds.
func Duration(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 900 || n > 43200 {
		return errors.New("it is a number of seconds from 900 to 43200")
	}
	return nil
}

// Port checks for a TCP port.
func Port(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 1 || n > 65535 {
		return errors.New("it is a port, 1 to 65535")
	}
	return nil
}

// SessionName checks for role_session_name.
func SessionName(s string) error {
	if len(s) < 2 || len(s) > 64 || !only(s, digits+letters+"_+=,.@-") {
		return errors.New("it has 2 to 64 letters, digits and _+=,.@-")
	}
	return nil
}

// ExternalID checks for external_id.
func ExternalID(s string) error {
	if len(s) < 2 || len(s) > 1224 || !only(s, digits+letters+"_+=,.@:/-") {
		return errors.New("it has 2 to 1224 letters, digits and _+=,.@:/-")
	}
	return nil
}

// Text checks for a value that a line of a file can have.
func Text(s string) error {
	if strings.ContainsAny(s, "\r\n\x00") || s != strings.TrimSpace(s) || strings.Contains(s, " #") || strings.Contains(s, " ;") {
		return errors.New("a line of an AWS config file can't hold it")
	}
	return nil
}

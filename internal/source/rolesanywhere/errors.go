package rolesanywhere

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

// errForeign is an answer that is not in the service's form.
var errForeign = errors.New("the answer is not in the form of Roles Anywhere")

func (c *call) doing() string { return "cannot get a session of role " + c.s.role.text }

// bad is an answer that can't be used. AWS does not send such; a proxy or a
// wrong endpoint might.
func (c *call) bad(why string) error {
	f := c.seen.Facts()
	e := &cred.UpstreamError{Op: "CreateSession", Target: c.s.role.text, Status: f.Status, Skew: f.Skew,
		Message: c.doing() + ": " + why, Help: "check endpoint_url and proxies: who answers is " + f.Host}
	addClock(e)
	return e
}

func addClock(e *cred.UpstreamError) {
	if text := awsclient.ClockText(e.Skew); text != "" {
		e.Message += " (" + text + ")"
	}
}

// failed turns the error of a call into one of this package's.
func (c *call) failed(err error) error {
	var set *awsclient.SettingsError
	if errors.As(err, &set) {
		return &settingsError{msg: set.Text + " (profile " + c.s.link.Profile + ")", help: set.Help, err: set}
	}
	f := awsclient.Explain(err, &c.seen)
	e := &cred.UpstreamError{
		Op: "CreateSession", Target: c.s.role.text, Code: f.Code, Status: f.Status,
		Message: c.doing() + ": " + f.Text, Help: f.Hint,
		Refused: f.Kind == awsclient.Refused, Skew: f.Skew, Err: f.Err,
	}
	if f.Kind == awsclient.Refused {
		if text, help := c.words(f); text != "" {
			e.Message, e.Help = c.doing()+": "+text, help
		}
	}
	addClock(e)
	return e
}

// words says what a refusal means, "" where AWS's own words are the best
// there are.
func (c *call) words(f awsclient.Failure) (text, help string) {
	s := c.s
	message := strings.ToLower(f.Message)
	has := func(part string) bool { return strings.Contains(message, part) }
	switch {
	case has("rolesessionname"):
		return "the Roles Anywhere profile " + s.profile.text + " does not let the request name its session",
			"leave role_session_name out of profile " + s.link.Profile + ", or enable acceptRoleSessionName (custom role session name) in the Roles Anywhere profile"
	case has("trust anchor") && (f.Status == http.StatusNotFound || has("not found")):
		return "there is no trust anchor " + s.anchor.text, "check " + settingAnchor + " of profile " + s.link.Profile + ", its region and its account"
	case has("profile") && (f.Status == http.StatusNotFound || has("not found")):
		return "there is no Roles Anywhere profile " + s.profile.text, "check " + settingProfile + " of profile " + s.link.Profile + ", its region and its account"
	case f.Status == http.StatusNotFound:
		return "AWS does not find the trust anchor or the Roles Anywhere profile" + because(f), "check " + settingAnchor + " and " + settingProfile + " of profile " + s.link.Profile
	case has("trust anchor") && has("enabled"):
		return "the trust anchor " + s.anchor.text + " is disabled", "enable it in the console of Roles Anywhere"
	case has("profile") && has("enabled"):
		return "the Roles Anywhere profile " + s.profile.text + " is disabled", "enable it in the console of Roles Anywhere"
	case has("revoked"):
		return "the certificate " + name(c.id.leaf) + " is revoked" + because(f), "get a new certificate"
	case has("certificate") && !has("x-amz-x509"):
		return c.untrusted(f)
	case has("assume role"):
		help = "check, in this order: the role's trust policy lets " + service + ".amazonaws.com sts:AssumeRole, sts:TagSession and sts:SetSourceIdentity; " +
			"its conditions (aws:SourceArn, the certificate's subject and issuer) fit; the Roles Anywhere profile " + s.profile.text + " lists the role"
		if s.duration > 3600 {
			help += fmt.Sprintf("; the role's maximum session duration is %d s or more", s.duration)
		}
		if s.role.account != s.profile.account {
			help += "; role and Roles Anywhere profile are in one account (they are in " + s.role.account + " and " + s.profile.account + ")"
		}
		return "AWS does not let Roles Anywhere assume it", help
	case f.Status == http.StatusBadRequest && has("durationseconds"):
		return fmt.Sprintf("AWS takes no session of %d s%s", s.duration, because(f)), "correct duration_seconds in profile " + s.link.Profile + ": 900 to 43200 s"
	case has("signature"):
		return "AWS does not accept the signature" + because(f), "a proxy that changes requests breaks signatures; else the key is not that of the certificate"
	}
	return "", ""
}

// untrusted names the trust anchor and what stands between it and the
// certificate.
func (c *call) untrusted(f awsclient.Failure) (text, help string) {
	leaf := c.id.leaf
	text = "the trust anchor " + c.s.anchor.text + " does not trust the certificate " + name(leaf) + ", issued by " + printable(leaf.Issuer.String())
	if !strings.EqualFold(clause(f.Message), "untrusted signing certificate") {
		text += because(f)
	}
	var check []string
	last := leaf
	if n := len(c.id.chain); n > 0 {
		last = c.id.chain[n-1]
	}
	check = append(check, "the trust anchor must hold the certificate of "+printable(last.Issuer.String())+
		", or "+settingChain+" the intermediates up to the one that it holds ("+sent(len(c.id.chain))+")")
	if n := len(c.id.unused); n > 0 {
		check = append(check, fmt.Sprintf("certificates beside these that have issued none of them, or were too many: %d", n))
	}
	if !leaf.BasicConstraintsValid {
		check = append(check, "the certificate has no basic constraints (CA:FALSE)")
	}
	for _, x := range c.id.chain {
		if c.id.now.After(x.NotAfter) {
			check = append(check, "the intermediate "+name(x)+" ended at "+stamp(x.NotAfter))
		}
	}
	return text, "check: " + strings.Join(check, "; ")
}

func sent(n int) string {
	switch n {
	case 0:
		return "none was sent"
	case 1:
		return "one was sent"
	}
	return fmt.Sprintf("%d were sent", n)
}

// because is AWS's own message, in brackets.
func because(f awsclient.Failure) string {
	if f.Message == "" {
		return ""
	}
	return " (" + clause(f.Message) + ")"
}

// clause is a message without its full stop, to stand inside a line.
func clause(message string) string { return strings.TrimRight(message, ". ") }

// printable is one short line of what somebody else wrote.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\ufffd' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// deviceError is a TPM or token that does not do its part now.
type deviceError struct {
	msg, help string
	err       error
}

func (e *deviceError) Error() string        { return e.msg }
func (e *deviceError) Hint() string         { return e.help }
func (e *deviceError) Unwrap() error        { return e.err }
func (e *deviceError) Is(target error) bool { return target == cred.ErrUnavailable }

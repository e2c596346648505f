package sso

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// configError is a profile that can't be used as it is written.
type configError struct {
	msg, help string
	err       error
}

func (e *configError) Error() string        { return e.msg }
func (e *configError) Hint() string         { return e.help }
func (e *configError) Unwrap() error        { return e.err }
func (e *configError) Is(target error) bool { return target == cred.ErrConfig }

func unusable(profile, why string) error {
	return &configError{msg: "cannot use profile " + profile + ": " + why}
}

// quote makes a setting's value one short printable word.
func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strconv.Quote(s)
}

// errNoBrowser: the person's program can't open a browser.
var errNoBrowser = errors.New("no browser can be opened")

// errForgotten ends a flight whose session is signed out of.
var errForgotten = fmt.Errorf("the session was signed out of: %w", cred.ErrUnavailable)

// interaction is an error that needs a person, in words for c.
func (s *session) interaction(c *caller, kind, why string) error {
	return &cred.InteractionError{Key: s.key, Kind: kind, Profile: c.in.Profile,
		Message: "cannot sign in to " + c.title() + ": " + why, Help: "keyfob login " + c.in.Profile}
}

// clause makes one clause of a message of AWS's.
func clause(message string) string { return strings.TrimRight(message, ". ") }

func noLog() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

// notFound reports whether err says that a host's name does not exist.
func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// Package logging sets up the one logger of a daemon: its level, its format,
// the names of its fields, and a last line of defence against secrets.
// Secrets are kept out of logs by their type (cred.Secret); the redaction
// here is for texts that come from elsewhere, such as a library's error.
package logging

import (
	"io"
	"regexp"

	"github.com/sirupsen/logrus"
)

// The names of log fields. A message is constant; what varies stands in
// fields, so that logs can be searched and tests can assert them.
const (
	Profile   = "profile"
	Link      = "link" // first digits of a LinkKey
	LinkKind  = "link_kind"
	Caller    = "caller_uid"
	PID       = "caller_pid"
	Program   = "caller_program"
	Endpoint  = "endpoint"
	Reason    = "reason"
	Expires   = "expires"
	Path      = "path"
	File      = "file"
	Method    = "method"
	Status    = "status"
	Record    = "record"
	Backend   = "backend"
	Socket    = "socket"
	Version   = "version"
	Operation = "operation"
)

// New returns a logger that writes to w. level is one of logrus's names
// (trace, debug, info, warn, error), format is text or json. The error says
// which of the two is not known.
func New(w io.Writer, level, format string) (*logrus.Logger, error) {
	lv, err := logrus.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	l := logrus.New()
	l.SetOutput(w)
	l.SetLevel(lv)
	var f logrus.Formatter = &logrus.JSONFormatter{TimestampFormat: "2006-01-02T15:04:05.000Z07:00", DisableHTMLEscape: true}
	if format == "text" {
		f = &logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02 15:04:05", DisableColors: true}
	}
	l.SetFormatter(&redacting{f})
	return l, nil
}

// Discard returns an entry of a logger that writes nowhere.
func Discard() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	return logrus.NewEntry(l)
}

// redacting blanks what looks like a secret in a finished line.
type redacting struct{ logrus.Formatter }

func (r *redacting) Format(e *logrus.Entry) ([]byte, error) {
	b, err := r.Formatter.Format(e)
	if err != nil {
		return nil, err
	}
	return redact(b), nil
}

// secretShapes are the forms in which AWS's answers, requests and files
// spell a secret: JSON and XML members, query parameters, headers, settings.
// The first group is kept.
var secretShapes = regexp.MustCompile(`(?i)((?:secret_?access_?key|session_?token|security-?token|authorization|"token\\?"|token_?code|saml_?assertion|web_?identity_?token|passphrase|refresh_?token|access_?token|client_?secret)(?:\\?["'])?\s*[:=>]\s*(?:\\?["'])?)([A-Za-z0-9/+=_.~%-]{6,})`)

func redact(b []byte) []byte {
	return secretShapes.ReplaceAll(b, []byte("${1}[redacted]"))
}

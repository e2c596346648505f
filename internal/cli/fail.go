package cli

import (
	"context"
	"errors"
	"strings"
	"unicode"

	"keyfob/internal/control"
	"keyfob/internal/settings"
)

// problem is a failure found by keyfob itself.
type problem struct {
	code    int
	message string // completes "cannot WHAT: ", or begins with "cannot "
	hint    string
}

func (p *problem) Error() string { return p.message }

func failure(message, hint string) error { return &problem{exitFailed, message, hint} }

func usage(message, hint string) error { return &problem{exitUsage, message, hint} }

func person(message, hint string) error { return &problem{exitPerson, message, hint} }

// fail prints why keyfob could not do what ("get credentials") and returns
// the exit code. It is the one place where errors become words and codes.
func (a *app) fail(what string, err error) int {
	code, message, hint := exitFailed, err.Error(), ""
	var (
		own    *problem
		wire   *control.Error
		bad    *settings.Error
		hinted interface{ Hint() string }
	)
	switch {
	case errors.As(err, &own):
		code, hint = own.code, own.hint
	case errors.As(err, &wire):
		hint = wire.Hint
		switch wire.Code {
		case control.CodeUsage:
			code = exitUsage
		case control.CodeInteraction:
			code = exitPerson
		case control.CodeDenied:
			code = exitDenied
		}
	case errors.As(err, &bad):
		hint = bad.Hint()
	case errors.Is(err, context.DeadlineExceeded):
		message, hint = "keyfobd gave no answer in time", "keyfob status"
	case errors.Is(err, control.ErrGone):
		hint = "it was just ending: keyfob list shows what there is; then the same again"
	case errors.As(err, &hinted):
		hint = hinted.Hint()
	}
	if !strings.HasPrefix(message, "cannot ") {
		message = "cannot " + what + ": " + message
	}
	a.say("keyfob: " + message)
	a.hint(hint)
	return code
}

// notice is for what is worth knowing and no failure: --quiet leaves it out.
func (a *app) notice(text string) {
	if !a.opts.quiet {
		a.say("keyfob: " + text)
	}
}

// say writes one line to standard error.
func (a *app) say(line string) { a.write(oneLine(line) + "\n") }

// hint goes with an error, advise with a notice.
func (a *app) hint(text string) {
	if text != "" {
		a.say("hint: " + text)
	}
}

func (a *app) advise(text string) {
	if !a.opts.quiet {
		a.hint(text)
	}
}

// oneLine makes a line of s that does nothing to a terminal: what others
// wrote (a profile's name, AWS's words) may hold escape sequences.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s))
}

// Package cli is the command keyfob: its commands, what they print, and
// their exit codes. It asks the daemon for everything, and imports neither
// the AWS SDK, a keyring, nor package net, because it must start fast.
package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/hot"
	"keyfob/internal/settings"
)

// The exit codes (CONTRACT.md §2).
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitPerson = 3 // a person must act
	exitDenied = 4 // keyfob's own rules refused
)

// Process is what a run of keyfob gets from outside besides its arguments.
type Process struct {
	Version string
	Environ []string
	Stdin   *os.File
	Stdout  *os.File
	Stderr  *os.File
	// Early is what was asked before main, if anything was.
	Early hot.Answer
}

// Main runs keyfob with args (without the program's name) and returns its
// exit code.
func Main(args []string, p Process) int {
	a := &app{Process: p}
	answer := p.Early
	if !answer.Asked {
		answer = hot.Ask(args, p.Environ)
	}
	if answer.Asked {
		if code, done := a.finish(answer); done {
			return code
		}
	}
	return a.slow(args)
}

// app is one run of keyfob.
type app struct {
	Process
	flags  settings.Flags
	opts   options
	cached *settings.Settings // by settings()
	// badFile is why config.toml is not in cached, nil where it is.
	badFile error
	client  *control.Client // by dial()
	socket  string          // that client is connected to
	told    bool            // --verbose has said what is used
	line    statusLine
	spawn   *os.Process // the daemon that we started, nil if we did not
	// home is the user database's, once homeKnown; "" where it has none.
	home      string
	homeKnown bool
	ending    int // the process of a daemon that hung up on us, 0 if none did
}

// getenv returns a variable, blank ones as unset; HOME, where nobody has set
// it, is that of the user database.
func (a *app) getenv(name string) string { return strings.TrimSpace(a.rawenv(name)) }

func (a *app) rawenv(name string) string {
	value := a.variable(name)
	if name == "HOME" && strings.TrimSpace(value) == "" {
		if !a.homeKnown {
			a.home, a.homeKnown = homeOfUser(), true
		}
		return a.home
	}
	return value
}

func (a *app) variable(name string) string {
	for i := len(a.Environ) - 1; i >= 0; i-- { // as os/exec: the last one wins
		if v, ok := strings.CutPrefix(a.Environ[i], name); ok && len(v) > 0 && v[0] == '=' {
			return v[1:]
		}
	}
	return ""
}

// settings are decided once. A broken config.toml does not take from a
// person what a daemon serves that read a good one: the command goes on
// without the file, and only what needs the file fails (starting a daemon, a
// profile that nothing else names).
func (a *app) settings() (*settings.Settings, error) {
	if a.cached == nil {
		s, err := settings.Load(a.flags, a.rawenv)
		var bad *settings.Error
		if errors.As(err, &bad) && bad.File != "" {
			if without, e := settings.LoadWithoutFile(a.flags, a.rawenv); e == nil {
				s, err, a.badFile = without, nil, bad
			}
		}
		if err != nil {
			return nil, err
		}
		a.cached = s
	}
	return a.cached, nil
}

// processWait is how long credential-process and env wait for the daemon:
// a little more than it takes, and less than the minute of the SDKs. Package
// hot has the same.
const processWait = 59 * time.Second

// finish ends a credential-process whose request has been made by package
// hot; done is false where it is to be made again in the usual way.
func (a *app) finish(answer hot.Answer) (code int, done bool) {
	const what = "get credentials"
	switch {
	case answer.Document != nil:
		code = a.printDocument(answer.Document)
		answer.Close()
		if control.Older(hot.DaemonVersion(answer.Hello), a.Version) {
			a.replaceOlder()
		}
		return code, true
	case answer.TimedOut:
		return a.fail(what, context.DeadlineExceeded), true
	case answer.Reply == nil:
		a.ending = answer.PID // it was just ending: another is started
		return 0, false
	}
	document, done, err := control.ReadReply(a.Version, answer.Hello, answer.Reply)
	var wire *control.Error
	switch {
	case !done:
		return 0, false
	case errors.As(err, &wire) && wire.Code == control.CodeInteraction && a.mayAsk(a.getenv("KEYFOB_INTERACTIVE")):
		return 0, false // and this time the daemon is told that somebody is here
	case err != nil:
		return a.fail(what, err), true
	}
	return a.printDocument(document), true
}

// inLoop reports whether the daemon itself, resolving a profile, has run the
// program that runs us.
func (a *app) inLoop() bool {
	depth := a.getenv("KEYFOB_CALL_DEPTH")
	return depth != "" && depth != "0"
}

// printDocument writes a credential_process document, and nothing that is
// none.
func (a *app) printDocument(document []byte) int {
	if !strings.HasPrefix(string(document), `{"Version":1,"AccessKeyId":"`) {
		return a.fail("get credentials", failure("keyfobd's answer holds no credentials", ""))
	}
	if _, err := a.Stdout.Write(append(document[:len(document):len(document)], '\n')); err != nil {
		return a.fail("write the credentials", err)
	}
	return exitDone
}

func (a *app) hangUp() {
	if a.client != nil {
		_ = a.client.Close()
		a.client = nil
	}
}

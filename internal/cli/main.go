// Package cli is the command keyfob: its commands, what they print, and
// their exit codes. It asks the daemon for everything, and imports neither
// the AWS SDK, a keyring, nor package net, because it is started for every
// signature of some SDKs.
package cli

import (
	"context"
	"os"
	"strings"
	"time"

	"keyfob/internal/control"
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
}

// Main runs keyfob with args (without the program's name) and returns its
// exit code.
func Main(args []string, p Process) int {
	a := &app{Process: p}
	if code, done := a.fast(args); done {
		return code
	}
	return a.slow(args)
}

// app is one run of keyfob.
type app struct {
	Process
	flags  settings.Flags
	opts   options
	cached *settings.Settings // by settings()
	client *control.Client    // by dial()
	spawn  *os.Process        // the daemon that we started, nil if we did not
	ending int                // the process of a daemon that hung up on us, 0 if none did
}

// getenv returns a variable, blank ones as unset.
func (a *app) getenv(name string) string { return strings.TrimSpace(a.rawenv(name)) }

func (a *app) rawenv(name string) string {
	for i := len(a.Environ) - 1; i >= 0; i-- { // as os/exec: the last one wins
		if v, ok := strings.CutPrefix(a.Environ[i], name); ok && len(v) > 0 && v[0] == '=' {
			return v[1:]
		}
	}
	return ""
}

func (a *app) settings() (*settings.Settings, error) {
	if a.cached == nil {
		s, err := settings.Load(a.flags, a.rawenv)
		if err != nil {
			return nil, err
		}
		a.cached = s
	}
	return a.cached, nil
}

// processWait is how long credential-process and env wait for the daemon:
// a little more than it takes, and less than the minute of the SDKs.
const processWait = 59 * time.Second

// fast is `keyfob credential-process` for a daemon that runs, with the flags
// that a config file has: no flag set, no TOML, no reflection. Whatever it
// can't do is left to slow (done is false), as long as nothing was asked.
func (a *app) fast(args []string) (code int, done bool) {
	if len(args) == 0 || args[0] != "credential-process" {
		return 0, false
	}
	var c control.Context
	for i := 1; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		var to *string
		switch {
		case name == "--profile":
			to = &c.Profile
		case name == "--region":
			to = &c.Region
		case name == "--role-arn":
			to = &c.RoleARN
		case args[i] != "" && args[i][0] != '-':
			to, value, joined = &c.Profile, args[i], true
		default:
			return 0, false
		}
		if !joined {
			if i++; i == len(args) {
				return 0, false
			}
			value = args[i]
		}
		if value == "" || *to != "" {
			return 0, false
		}
		*to = value
	}
	if a.inLoop() || a.getenv("KEYFOB_INTERACTIVE") != "" {
		return 0, false
	}
	socket, profile, ok := settings.Quick(a.rawenv)
	if !ok {
		return 0, false
	}
	c.Named = c.Profile != ""
	if !c.Named {
		c.Profile = profile
		c.ProfileVar = a.profileVar()
	}
	a.addCaller(&c)
	c.MayAsk = a.getenv("CI") == "" && hasTerminal()

	deadline := time.Now().Add(processWait)
	client, err := control.DialQuick(socket, deadline)
	if err != nil {
		return 0, false
	}
	client.Version = a.Version
	a.client = client
	defer a.hangUp()
	if c.MayAsk {
		deadline = time.Time{} // somebody may just be typing an MFA code elsewhere
	}
	result, done, err := client.Ask(deadline, control.MethodCredentials, appendCredentialsParams(nil, c))
	if !done { // somebody is to be asked
		ctx, cancel := a.within(processWait, c.MayAsk)
		defer cancel()
		result, err = client.Await(ctx, a.handler("credential-process"))
	}
	if err == control.ErrGone {
		a.ending = client.ServerPID()
		a.hangUp() // it was just ending: slow starts another
		return 0, false
	}
	if err != nil {
		return a.fail("get credentials", err), true
	}
	code = a.printDocument(result)
	if control.Older(client.Server().Version, a.Version) {
		a.replaceOlder(context.Background())
	}
	return code, true
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

package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"keyfob/internal/control"
)

// named returns the profile that the command line names, "" if none.
func (a *app) named(in invocation) (string, error) {
	name := a.flags.Profile
	if len(in.args) > 0 {
		if name != "" && name != in.args[0] {
			return "", usage(fmt.Sprintf("cannot use both %s and --profile %s", in.args[0], name), "")
		}
		name = in.args[0]
	}
	return name, nil
}

// mustName is named for commands that must not guess.
func (a *app) mustName(in invocation) (string, error) {
	name, err := a.named(in)
	if err == nil && name == "" {
		err = usage(fmt.Sprintf("cannot run %s without a profile", in.cmd.name), "keyfob "+in.cmd.name+" "+in.cmd.args)
	}
	return name, err
}

// context is what the daemon is told with a command about a profile.
func (a *app) context(in invocation) (control.Context, error) {
	name, err := a.named(in)
	if err != nil {
		return control.Context{}, err
	}
	c := control.Context{Profile: name, Named: name != "", Region: a.opts.region, RoleARN: a.opts.roleARN}
	s, err := a.settings()
	if err != nil {
		return c, err
	}
	if !c.Named {
		if a.badFile != nil && s.ProfileFrom == "default" {
			return c, a.badFile // it may name another one
		}
		c.Profile = s.Profile
		c.ProfileVar = a.profileVar()
	}
	a.addCaller(&c)
	c.MayAsk = a.mayAsk(s.Interactive)
	return c, nil
}

// mayAsk decides, by the setting interactive, whether a person can be asked.
func (a *app) mayAsk(interactive string) bool {
	switch interactive {
	case "never":
		return false
	case "always":
		return true
	}
	return a.getenv("CI") == "" && (hasTerminal() || a.graphical())
}

// within bounds a call by d, or by the time that a person may take.
func (a *app) within(d time.Duration, mayAsk bool) (context.Context, context.CancelFunc) {
	if mayAsk {
		d = a.signInWait()
	}
	return context.WithTimeout(context.Background(), d)
}

// signInWait is a little more than the daemon waits for a person.
func (a *app) signInWait() time.Duration {
	d := 10 * time.Minute
	if s, err := a.settings(); err == nil {
		d = s.SignInTimeout
	}
	return d + time.Minute
}

const (
	quickWait  = 30 * time.Second // for what the daemon knows or writes itself
	awsWait    = 90 * time.Second // where it asks AWS
	unlockWait = 2 * time.Minute  // where a keyring may ask the person
)

// stdinIsTerminal decides between asking and reading standard input.
func (a *app) stdinIsTerminal() bool { return term.IsTerminal(int(a.Stdin.Fd())) }

// lineSource reads lines of standard input one byte at a time, so that it
// takes no more of it than it uses.
type lineSource struct {
	from *os.File
	// wait, where it is set, returns when something can be read, or with the
	// error of the context that has ended meanwhile.
	wait func() error
}

// maxLine bounds a line of standard input: codes and passphrases.
const maxLine = 64 << 10

func (l *lineSource) next() (string, error) {
	var line []byte
	var one [1]byte
	for len(line) < maxLine {
		if l.wait != nil {
			if err := l.wait(); err != nil {
				return "", err
			}
		}
		n, err := l.from.Read(one[:])
		if n == 1 {
			if one[0] == '\n' {
				return trimCR(line), nil
			}
			line = append(line, one[0])
			continue
		}
		if err != nil {
			return trimCR(line), nil // an unended last line counts
		}
	}
	return "", failure("cannot read standard input: its first line is too long", "")
}

func trimCR(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return string(b)
}

package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	kardianos "github.com/kardianos/service"
)

// Name is the service's: keyfob.service, keyfob.socket, /etc/init.d/keyfob.
const Name = "keyfob"

// Label is its name in launchd.
const Label = "org.keyfob.keyfobd"

// SystemUser is the user as whom the system service runs, where the
// platform's templates make one.
const SystemUser = "keyfob"

// Config says which service. The zero value is the service of this user, of
// this program.
type Config struct {
	System bool // the machine's, instead of this user's
	// Program is keyfobd's absolute path; "" is the running program.
	Program string
	// Args stand after "run --service [--system]": for a user's service that
	// is not at the usual places, such as "--config", "/x/config.toml".
	Args []string
	// Socket is the control socket, for socket activation; "" is the usual.
	Socket string
	// Env are variables KEY=value for the daemon.
	Env []string
	// PassphraseCredential is a file that systemd-creds encrypted with the
	// name keyfob.passphrase: the system service unlocks its vault with it.
	PassphraseCredential string
	// Path is the person's search path for programs, for their own daemon:
	// service managers set one to little. "" leaves it to them.
	Path string
	// Purge has uninstall remove the machine's data, settings and user too.
	Purge bool
	// Force overwrites and removes files of ours that were edited by hand.
	Force bool
	// MakeRoom is called before a service starts that did not run: whoever
	// has the control socket or the data directory must leave it. nil does
	// nothing.
	MakeRoom func(context.Context) error

	// Platform is systemd, openrc, launchd or windows; "" is what there is.
	Platform string
	// Root stands before the absolute path of every file; "" is "/".
	Root string
	// Getenv and UID are the caller's; nil and 0 with a nil Getenv are this
	// process's own.
	Getenv func(string) string
	UID    int

	kept []string // notes about Args that an earlier install gave
}

// Manager installs and controls the service. New opens and starts nothing.
type Manager struct {
	c    Config
	host host
}

// host is one kind of service manager.
type host interface {
	install(context.Context) (Plan, error)
	uninstall(context.Context) (Plan, error)
	// control does start, stop or restart.
	control(ctx context.Context, verb string) error
	status(context.Context) (Status, error)
	logs(context.Context, io.Writer, LogOptions) error
}

// Status is what the service manager says of the service.
type Status struct {
	Platform  string `json:"platform"`
	System    bool   `json:"system"`
	Installed bool   `json:"installed"`
	Enabled   bool   `json:"enabled"` // starts by itself, at boot or login
	Running   bool   `json:"running"`
	State     string `json:"state"`             // the manager's own word
	PID       int    `json:"pid,omitempty"`     // 0 where it does not run
	File      string `json:"file,omitempty"`    // the unit, script or plist
	Text      string `json:"text,omitempty"`    // what the daemon said last
	Problem   string `json:"problem,omitempty"` // what keeps it from running
	Hint      string `json:"hint,omitempty"`
}

// LogOptions chooses of the log.
type LogOptions struct {
	Lines  int  // the last of them; 0 is 100
	Follow bool // until the context ends
}

// Error is a failure in words, with what helps.
type Error struct {
	Text  string // "cannot …"
	Help  string
	Cause error // nil for none
}

func (e *Error) Error() string { return e.Text }

// Hint says what to do, "" for nothing.
func (e *Error) Hint() string { return e.Help }

func (e *Error) Unwrap() error { return e.Cause }

func fail(help, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Text: err.Error(), Help: help, Cause: errors.Unwrap(err)}
}

// New returns the Manager of a service. Errors are *Error: no service
// manager that keyfob knows, a program that can't be named in its files.
func New(c Config) (*Manager, error) {
	if c.Getenv == nil {
		c.Getenv, c.UID = os.Getenv, os.Getuid()
	}
	if c.Program == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fail("", "cannot find keyfobd: %w", err)
		}
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		c.Program = self
	}
	for _, s := range append([]string{c.Program, c.Socket, c.PassphraseCredential, c.Path}, append(c.Args, c.Env...)...) {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fail("", "cannot write %q into the service's files: it has a control character", s)
		}
	}
	if !filepath.IsAbs(c.Program) {
		return nil, fail("", "cannot install %s as a service: its path is not absolute", c.Program)
	}
	if c.Platform == "" {
		c.Platform = detect()
	}
	m := &Manager{c: c}
	switch {
	case c.Platform == "systemd":
		m.host = &systemd{c: c}
	case c.Platform == "openrc":
		if !c.System {
			return nil, fail("keyfob starts a daemon by itself when it needs one; --system installs one for the machine", "cannot install a service of a user: OpenRC has none")
		}
		m.host = &openrc{c: c}
	case c.Platform == "launchd":
		m.host = &launchd{c: c}
	case c.Platform == "windows" && runtime.GOOS == "windows":
		m.host = newWindows(c)
	default:
		return nil, fail("keyfob starts a daemon by itself when it needs one; elsewhere let your supervisor run keyfobd run --service",
			"cannot use a service: no service manager that keyfob knows runs here (systemd, OpenRC)")
	}
	if c.PassphraseCredential != "" && !(c.Platform == "systemd" && c.System) {
		return nil, fail("use --passphrase-file", "cannot use a systemd credential: that is for the system service under systemd")
	}
	return m, nil
}

// detect asks kardianos/service, and believes it of systemd only where
// systemd is the running init (sd_booted(3)).
func detect() string {
	switch runtime.GOOS {
	case "darwin":
		return "launchd"
	case "windows":
		return "windows"
	}
	if st, err := os.Stat("/run/systemd/system"); err == nil && st.IsDir() {
		return "systemd"
	}
	if kardianos.Platform() == "linux-openrc" {
		return "openrc"
	}
	if _, err := os.Stat("/run/openrc/softlevel"); err == nil {
		return "openrc"
	}
	return ""
}

// PlanInstall returns what Install would do. An empty plan means that the
// service is installed and runs as it should.
func (m *Manager) PlanInstall(ctx context.Context) (Plan, error) {
	if err := m.privilege("install"); err != nil {
		return Plan{}, err
	}
	p, err := m.host.install(ctx)
	p.Notes = append(slices.Clone(m.c.kept), p.Notes...)
	return p, err
}

// Install does a plan of PlanInstall. What a failing step leaves is undone.
func (m *Manager) Install(ctx context.Context, p Plan) error { return p.run(ctx) }

// PlanUninstall returns what Uninstall would do: it removes the files that
// Install wrote, and nothing of the daemon's data and settings but with
// Purge. An empty plan means that nothing is installed.
func (m *Manager) PlanUninstall(ctx context.Context) (Plan, error) {
	if err := m.privilege("uninstall"); err != nil {
		return Plan{}, err
	}
	if m.c.Purge && !m.c.System {
		return Plan{}, fail("keyfob service uninstall without --purge, then remove the directories that it names", "cannot purge a person's own vault: it may hold the only copy of a key")
	}
	p, err := m.host.uninstall(ctx)
	if err != nil {
		return Plan{}, err
	}
	m.leftovers(&p)
	return p, nil
}

// Uninstall does a plan of PlanUninstall. It goes on over a step that fails
// and returns the first failure.
func (m *Manager) Uninstall(ctx context.Context, p Plan) error { return p.runAll(ctx) }

// Start starts the service, and the socket that starts it.
func (m *Manager) Start(ctx context.Context) error { return m.control(ctx, "start") }

// Stop stops both, until Start or the next boot or login.
func (m *Manager) Stop(ctx context.Context) error { return m.control(ctx, "stop") }

// Restart ends the daemon and starts it anew. Where the service manager
// holds the control socket no caller is refused meanwhile.
func (m *Manager) Restart(ctx context.Context) error { return m.control(ctx, "restart") }

func (m *Manager) control(ctx context.Context, verb string) error {
	if err := m.privilege(verb); err != nil {
		return err
	}
	return m.host.control(ctx, verb)
}

// Status asks the service manager.
func (m *Manager) Status(ctx context.Context) (Status, error) {
	s, err := m.host.status(ctx)
	s.Platform, s.System = m.c.Platform, m.c.System
	return s, err
}

// Logs writes the daemon's log to w.
func (m *Manager) Logs(ctx context.Context, w io.Writer, o LogOptions) error {
	if o.Lines <= 0 {
		o.Lines = 100
	}
	return m.host.logs(ctx, w, o)
}

// privilege refuses early what would fail half-way.
func (m *Manager) privilege(verb string) error {
	if runtime.GOOS == "windows" {
		return nil // the service control manager says so itself, at the first step
	}
	if m.c.System {
		if m.c.UID != 0 && m.c.Root == "" {
			return fail("sudo keyfob service "+verb+" --system", "cannot %s the system service: that takes root", verb)
		}
		return nil
	}
	if m.c.UID == 0 && m.c.Getenv("SUDO_USER") != "" {
		return fail("without sudo for "+m.c.Getenv("SUDO_USER")+"'s own service, or with --system for the machine's",
			"cannot %s: with sudo this would be root's own service", verb)
	}
	return nil
}

// args are the daemon's arguments.
func (c Config) args() []string {
	args := []string{"run", "--service"}
	if c.System {
		args = append(args, "--system")
	}
	return append(args, c.Args...)
}

// at is a path below Root.
func (c Config) at(path string) string {
	if c.Root == "" {
		return path
	}
	return filepath.Join(c.Root, path)
}

// home is the user's home directory.
func (c Config) home() (string, error) {
	h := c.Getenv("HOME")
	if !filepath.IsAbs(h) {
		return "", fail("set HOME", "cannot tell where the home directory is")
	}
	return h, nil
}

// keyring is the helper's path beside keyfobd.
func (c Config) keyring() string { return filepath.Join(filepath.Dir(c.Program), "keyfob-keyring") }

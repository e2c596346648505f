package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyfob/internal/settings"
)

// Usage is how the commands of Main are written.
const Usage = `usage: keyfobd service install [--dry-run] [--force] [--config FILE] [--data-dir DIR] [--socket PATH] [--profiles-file FILE] [--keystore B] [--passphrase-file FILE]
       keyfobd service install --system [--dry-run] [--force] [--passphrase-credential FILE]
       keyfobd service uninstall [--system] [--dry-run] [--force] [--purge --yes]
       keyfobd service start|stop|restart [--system]
       keyfobd service status [--system] [--json]
       keyfobd service logs [--system] [--lines N] [--follow]
`

// UsageError is a command that can't be understood: exit code 2.
type UsageError struct {
	Text string
	Help string // "" is that of the service
}

func (e *UsageError) Error() string { return e.Text }

// Hint says how it is written.
func (e *UsageError) Hint() string {
	if e.Help != "" {
		return e.Help
	}
	return "keyfobd service install|uninstall|start|stop|restart|status|logs"
}

// Main runs `keyfobd service args…`. c has what the caller knows: Args,
// Socket, Env, MakeRoom. Results go to stdout; what a plan will do is said on
// stderr before it is done, and on stdout by --dry-run. Errors: *UsageError,
// *Error, or those of stdout.
func Main(ctx context.Context, c Config, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "link-local" {
		return linkLocalMain(ctx, c, args[1:], stdout, stderr)
	}
	var verb string
	var dry, asJSON, yes bool
	o := LogOptions{}
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		next := func() (string, error) {
			if has {
				return value, nil
			}
			if i++; i >= len(args) {
				return "", &UsageError{Text: "cannot use " + name + " without a value"}
			}
			return args[i], nil
		}
		var err error
		switch name {
		case "--system":
			c.System = true
		case "--user":
			c.System = false
		case "--dry-run":
			dry = true
		case "--force":
			c.Force = true
		case "--purge":
			c.Purge = true
		case "--yes":
			yes = true
		case "--json":
			asJSON = true
		case "--follow", "-f":
			o.Follow = true
		case "--lines", "-n":
			var v string
			if v, err = next(); err == nil {
				if _, e := fmt.Sscanf(v, "%d", &o.Lines); e != nil || o.Lines <= 0 {
					err = &UsageError{Text: "cannot use --lines " + v + ": a number above 0"}
				}
			}
		case "--passphrase-credential":
			c.PassphraseCredential, err = next()
		case "--help", "-h":
			_, err := io.WriteString(stdout, Usage)
			return err
		default:
			if flag, ok := strings.CutPrefix(name, "--"); ok && slices.Contains(daemonFlags, flag) {
				var v string
				if v, err = next(); err == nil {
					err = c.daemonFlag(flag, v)
				}
				break
			}
			if flag, ok := strings.CutPrefix(name, "--"); ok && slices.Contains(settingFlags, flag) {
				return &UsageError{Text: "cannot use --" + flag + " with the service", Help: "write it into config.toml, which the service reads"}
			}
			if strings.HasPrefix(name, "-") || verb != "" {
				return &UsageError{Text: "cannot understand " + args[i]}
			}
			verb = args[i]
		}
		if err != nil {
			return err
		}
	}
	switch verb {
	case "install", "uninstall", "start", "stop", "restart", "status", "logs":
	case "":
		return &UsageError{Text: "cannot tell what to do with the service"}
	default:
		return &UsageError{Text: "cannot do " + verb + " with the service"}
	}
	// keyfob asks; whoever runs keyfobd itself says so.
	if verb == "uninstall" && c.System && c.Purge && !dry && !yes {
		return &UsageError{Text: "cannot purge the service unasked: it removes the machine's vault, its audit log and its settings", Help: "keyfobd service uninstall --system --purge --yes"}
	}
	if len(c.Args) > 0 && c.System {
		return &UsageError{Text: "cannot use " + c.Args[0] + " with --system", Help: "the machine's keyfobd has its settings in /etc/keyfob/config.toml"}
	}
	if verb == "install" && !c.System {
		c.fromEnvironment()
		if err := c.keepInstalled(); err != nil {
			return err
		}
		if err := c.fromSettings(); err != nil {
			return err
		}
	}
	m, err := New(c)
	if err != nil {
		return err
	}
	switch verb {
	case "install", "uninstall":
		return m.carryOut(ctx, verb, dry, stdout, stderr)
	case "start":
		return m.Start(ctx)
	case "stop":
		return m.Stop(ctx)
	case "restart":
		return m.Restart(ctx)
	case "logs":
		return m.Logs(ctx, stdout, o)
	}
	s, err := m.Status(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s\n", b)
		return err
	}
	_, err = io.WriteString(stdout, s.String())
	return err
}

func (m *Manager) carryOut(ctx context.Context, verb string, dry bool, stdout, stderr io.Writer) error {
	plan, do, none := m.PlanInstall, m.Install, "the service is installed and runs"
	if verb == "uninstall" {
		plan, do, none = m.PlanUninstall, m.Uninstall, "no service is installed"
	}
	p, err := plan(ctx)
	if err != nil {
		return err
	}
	return p.offer(dry, none, stdout, stderr, func() error { return do(ctx, p) })
}

// offer says what the plan is, or with none that there is nothing to do, and
// does it unless it is dry: then the plan is the result, on standard output.
func (p Plan) offer(dry bool, none string, stdout, stderr io.Writer, do func() error) error {
	to := stderr
	if dry {
		to = stdout
	}
	if _, err := io.WriteString(to, p.String()); err != nil {
		return err
	}
	if p.Empty() {
		_, err := fmt.Fprintln(to, none)
		return err
	}
	if dry {
		return nil
	}
	return do()
}

// String is the status for people, one fact a line.
func (s Status) String() string {
	var b strings.Builder
	whose := "your own"
	if s.System {
		whose = "the machine's"
	}
	yes := map[bool]string{true: "yes", false: "no"}
	fmt.Fprintf(&b, "service:   %s, %s\nstate:     %s\ninstalled: %s\n", whose, s.Platform, s.State, yes[s.Installed])
	if s.Installed {
		fmt.Fprintf(&b, "by itself: %s\n", yes[s.Enabled])
	}
	if s.PID > 0 {
		fmt.Fprintf(&b, "pid:       %d\n", s.PID)
	}
	if s.File != "" {
		fmt.Fprintf(&b, "file:      %s\n", s.File)
	}
	for _, l := range []struct{ name, text string }{{"daemon:    ", s.Text}, {"problem:   ", s.Problem}, {"hint:      ", s.Hint}} {
		if l.text != "" {
			b.WriteString(l.name + l.text + "\n")
		}
	}
	return b.String()
}

// daemonFlags are those that an install writes down for a person's daemon:
// where its things are. The variables of the same settings count too, because
// a service manager does not have the person's environment.
var daemonFlags = []string{"config", "data-dir", "socket", "profiles-file", "keystore", "passphrase-file"}

// settingFlags are the other flags of keyfobd: an install does not write
// them down, because config.toml says the same.
var settingFlags = []string{"profile", "imds", "container", "interactive", "log-level", "log-format"}

// Places are what args, those of Main, say of where the daemon's things are:
// for whoever looks for the daemon of that service (Config.MakeRoom).
func Places(args []string) settings.Flags {
	var c Config
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		if name == "--system" {
			c.System = true
		}
		flag, ok := strings.CutPrefix(name, "--")
		if !ok || !slices.Contains(daemonFlags, flag) {
			continue
		}
		if !has && i+1 < len(args) {
			i++
			value = args[i]
		}
		_ = c.daemonFlag(flag, value) // Main has refused an empty one
	}
	return c.flags()
}

// flags are the daemon's settings by its arguments.
func (c Config) flags() settings.Flags {
	f := settings.Flags{System: c.System}
	for i := 0; i+1 < len(c.Args); i += 2 {
		for _, to := range []struct {
			name  string
			field *string
		}{
			{"--config", &f.Config}, {"--data-dir", &f.DataDir}, {"--socket", &f.Socket}, {"--profiles-file", &f.ProfilesFile},
			{"--keystore", &f.Keystore}, {"--passphrase-file", &f.PassphraseFile},
		} {
			if c.Args[i] == to.name {
				*to.field = c.Args[i+1]
			}
		}
	}
	return f
}

func (c *Config) daemonFlag(name, value string) error {
	if value == "" {
		return &UsageError{Text: "cannot use --" + name + ": its value is empty"}
	}
	if name != "keystore" && !strings.HasPrefix(value, `\\.\`) { // a pipe's name is no path
		abs, err := filepath.Abs(value)
		if err != nil {
			return fail("", "cannot use --%s %s: %w", name, value, err)
		}
		value = abs
	}
	if name == "socket" {
		c.Socket = value
	}
	c.Args = append(c.Args, "--"+name, value)
	return nil
}

// fromSettings refuses settings that the daemon would refuse, and takes the
// socket that they name: a service manager that opens it has to know it.
func (c *Config) fromSettings() error {
	getenv := c.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	s, err := settings.Load(c.flags(), func(name string) string {
		if strings.HasPrefix(name, "KEYFOB_") { // the daemon does not have the caller's
			return ""
		}
		return getenv(name)
	})
	if err != nil {
		return err
	}
	if s.SocketExplicit && c.Socket == "" {
		c.Socket = s.Socket
	}
	return nil
}

// fromEnvironment takes PATH, and the settings that no flag gave.
func (c *Config) fromEnvironment() {
	getenv := c.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	if c.Path == "" {
		c.Path = getenv("PATH")
	}
	for _, name := range daemonFlags {
		variable := "KEYFOB_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if v := strings.TrimSpace(getenv(variable)); v != "" && !slices.Contains(c.Args, "--"+name) {
			_ = c.daemonFlag(name, v) // of an empty value only
		}
	}
}

package cli

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// What installs a daemon is the daemon's own file, so that the service that
// is installed is the one that was asked: keyfobd does `keyfob service` and
// `keyfob link-local`, with our arguments, streams and exit code.

// serviceFlags are keyfobd's, for the help and for completion: it is keyfobd
// that reads them.
func serviceFlags(_ *options, fs *flag.FlagSet) {
	fs.Bool("system", false, "the machine's daemon, for all its users, in place of yours")
	fs.Bool("dry-run", false, "install, uninstall: show what would be done and do nothing")
	fs.Bool("force", false, "install, uninstall: replace or remove what is not as keyfob wrote it")
	fs.Bool("purge", false, "uninstall --system: remove its data and settings too")
	fs.Bool("yes", false, "do not ask")
	fs.String("passphrase-credential", "", "install --system: systemd credential `file` with the vault's passphrase")
	fs.Int("lines", 0, "logs: the last `number` of lines")
	fs.Bool("follow", false, "logs: go on as they come")
	fs.Bool("json", false, "status: print JSON")
}

func linkLocalFlags(_ *options, fs *flag.FlagSet) {
	fs.Bool("system", false, "enable: the machine's daemon gets the address")
	fs.String("user", "", "enable: the daemon of that `user` gets it")
	fs.Bool("ipv4-only", false, "enable: 169.254.169.254 alone")
	fs.Bool("dry-run", false, "enable, disable: show what would be done and do nothing")
	fs.Bool("force", false, "enable, disable: go on where something else is in the way")
	fs.Bool("json", false, "status: print JSON")
}

// service is `keyfob service …`.
func (a *app) service(in invocation) int {
	const what = "manage the service"
	rest := a.own(in.rest)
	err := nearVerb(in.cmd, rest)
	var args []string
	if err == nil {
		args, err = a.serviceArgs(rest)
	}
	if err == nil && purges(args) {
		err = a.confirmPurge(args)
		args = append(args, "--yes")
	}
	if err != nil {
		return a.fail(what, err)
	}
	return a.haveDaemonDo(what, append([]string{"service"}, args...))
}

// own takes out of args the flags that are keyfob's own.
func (a *app) own(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		switch arg {
		case "--quiet":
			a.opts.quiet = true
		case "--verbose":
			a.opts.verbose = true
		case "--yes":
			a.opts.yes = true
		default:
			return false
		}
		return true
	})
}

// serviceArgs puts the general flags that stand before the word service
// behind it, where keyfobd takes those that say where a daemon's things are.
func (a *app) serviceArgs(args []string) ([]string, error) {
	f := &a.flags
	for _, x := range []struct{ flag, value string }{{"--profile", f.Profile}, {"--imds", f.IMDS}, {"--container", f.Container},
		{"--interactive", f.Interactive}, {"--log-level", f.LogLevel}, {"--log-format", f.LogFormat}} {
		if x.value != "" {
			return nil, usage("cannot use "+x.flag+" with service: a daemon that runs as a service takes it from its settings", "keyfob --config FILE service install, with that in FILE")
		}
	}
	var all []string
	for _, x := range []struct{ flag, value string }{{"--config", f.Config}, {"--data-dir", f.DataDir}, {"--socket", f.Socket},
		{"--profiles-file", f.ProfilesFile}, {"--keystore", f.Keystore}, {"--passphrase-file", f.PassphraseFile}} {
		given := slices.ContainsFunc(args, func(arg string) bool { return arg == x.flag || strings.HasPrefix(arg, x.flag+"=") })
		if x.value != "" && !given { // the nearer one counts
			all = append(all, x.flag, x.value)
		}
	}
	return append(all, args...), nil
}

// nearVerb refuses a first word that is nearly one of the command's. What is
// none at all is keyfobd's to judge.
func nearVerb(cmd *command, args []string) error {
	verbs := strings.Split(cmd.args, "|")
	if len(args) == 0 || slices.Contains(verbs, args[0]) {
		return nil
	}
	if near := nearest(args[0], verbs); near != "" && !strings.HasPrefix(args[0], "-") {
		return usage(fmt.Sprintf("cannot run %q: there is no such command", cmd.name+" "+args[0]), "keyfob "+cmd.name+" "+near)
	}
	return nil
}

// purges reports whether keyfobd would remove a vault.
func purges(args []string) bool {
	has := func(word string) bool { return slices.Contains(args, word) }
	return has("--purge") && has("uninstall") && !has("--dry-run")
}

// confirmPurge asks before a vault is removed.
func (a *app) confirmPurge(args []string) error {
	return a.confirm("Remove the machine's keyfob with its vault, its audit log and its settings?", "cannot purge the service",
		"keyfob service "+strings.Join(args, " ")+" --yes")
}

// linkLocal is `keyfob link-local …`.
func (a *app) linkLocal(in invocation) int {
	const what = "manage the metadata address"
	rest := a.own(in.rest)
	if err := nearVerb(in.cmd, rest); err != nil {
		return a.fail(what, err)
	}
	return a.haveDaemonDo(what, append([]string{"service", "link-local"}, rest...))
}

// haveDaemonDo runs keyfobd with args. Its messages are keyfob's: one command
// was given, and one answers.
func (a *app) haveDaemonDo(what string, args []string) int {
	program, err := findDaemon()
	if err != nil {
		return a.fail(what, err)
	}
	said := &relayed{say: a.say, quiet: a.opts.quiet}
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = a.Stdin, a.Stdout, said, a.Environ
	cmd.WaitDelay = time.Second // what it started may hold on to its standard error
	err = cmd.Run()
	said.end()
	var ended *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return exitDone
	case errors.As(err, &ended) && ended.ExitCode() >= 0:
		return ended.ExitCode()
	case errors.As(err, &ended):
		return exitFailed
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		err = failure("cannot run "+program+": "+errorOf(err).Error(), "install keyfobd beside keyfob")
	}
	return a.fail(what, err)
}

// relayed passes on lines of keyfobd's as they come, as keyfob's.
type relayed struct {
	say   func(string)
	quiet bool   // errors and their hints alone
	line  []byte // that has not ended yet
}

func (r *relayed) Write(p []byte) (int, error) {
	r.line = append(r.line, p...)
	for {
		line, rest, whole := bytes.Cut(r.line, []byte{'\n'})
		if !whole {
			return len(p), nil
		}
		r.pass(string(line))
		r.line = rest
	}
}

func (r *relayed) end() {
	if len(r.line) > 0 {
		r.pass(string(r.line))
	}
}

func (r *relayed) pass(line string) {
	message, isMessage := strings.CutPrefix(line, "keyfobd: ")
	hint, isHint := strings.CutPrefix(line, "hint: ")
	switch {
	case isMessage:
		r.say("keyfob: " + message)
	case isHint:
		if rest, ok := strings.CutPrefix(hint, "keyfobd service "); ok {
			hint = "keyfob service " + rest
		}
		r.say("hint: " + hint)
	case !r.quiet:
		r.say(line)
	}
}

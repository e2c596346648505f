package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/service"
	"keyfob/internal/settings"
)

// Main runs keyfobd with the given arguments and returns its exit code: 0
// done, 1 failed, 2 wrong usage.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	var flags settings.Flags
	usage := false
	root := &cobra.Command{
		Use:           "keyfobd",
		Short:         "The keyfob daemon: keeps AWS credentials fresh and serves them to local programs",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		usage = true
		return fmt.Errorf("cannot understand the command: %w", err)
	})
	pf := root.PersistentFlags()
	for _, f := range []struct {
		to         *string
		name, help string
	}{
		{&flags.Config, "config", "keyfob's settings file"},
		{&flags.DataDir, "data-dir", "directory of the vault and the log"},
		{&flags.Socket, "socket", "control socket"},
		{&flags.Profile, "profile", "default profile, also of --imds"},
		{&flags.ProfilesFile, "profiles-file", "keyfob's own profiles file"},
		{&flags.Keystore, "keystore", "where the master key is kept: " + strings.Join(settings.Backends, ", ")},
		{&flags.PassphraseFile, "passphrase-file", "file with the passphrase, for --keystore passphrase"},
		{&flags.IMDS, "imds", "serve the instance metadata interface at this address:port"},
		{&flags.Container, "container", "serve the container credentials interface at this address:port"},
		{&flags.Interactive, "interactive", "auto, never or always"},
		{&flags.LogLevel, "log-level", "trace, debug, info, warn or error"},
		{&flags.LogFormat, "log-format", "text or json"},
	} {
		pf.StringVar(f.to, f.name, "", f.help)
	}
	pf.BoolVar(&flags.System, "system", false, "the daemon of the machine: its own places, for all its users")

	onDemand, asService, asJSON := false, false, false
	run := &cobra.Command{
		Use:   "run",
		Short: "Run in the foreground until a signal ends it",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if flags.System && onDemand {
				usage = true
				return errors.New("cannot use --system with --on-demand")
			}
			onOneProcessor()
			if asService {
				out, err := openServiceLog(stderr, flags.System)
				defer out.close()
				if err == nil {
					err = runService(flags, version, stderr, out)
				}
				out.failed(err)
				return err
			}
			ready := readyPipe()
			err := runForeground(flags, version, onDemand, stderr, func() { ready.tell("ok\n") })
			if err != nil {
				ready.tell("error: " + oneLine(err) + "\n" + hintLine(err))
			}
			return err
		},
	}
	run.Flags().BoolVar(&onDemand, "on-demand", false, "end by itself when nobody has asked for a while")
	run.Flags().BoolVar(&asService, "service", false, "run under a service manager: it is told how the daemon is")
	services := &cobra.Command{
		Use:                "service",
		Short:              "Install, remove and control the service",
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			err := service.Main(ctx, service.Config{MakeRoom: makeRoom(args, os.Getenv, version)}, args, stdout, stderr)
			var wrong *service.UsageError
			usage = errors.As(err, &wrong)
			return err
		},
	}
	check := &cobra.Command{
		Use:   "validate",
		Short: "Check the settings as run would read them",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return validate(flags, environOf(flags), asJSON, stdout)
		},
	}
	check.Flags().BoolVar(&asJSON, "json", false, "print the problems as JSON")
	days, force := longestCertificate, false
	certificate := &cobra.Command{
		Use:   "make-certificate DIRECTORY NAME…",
		Short: "Make the certificate of a container endpoint that speaks TLS, with an authority for clients to trust",
		Args: func(_ *cobra.Command, args []string) error {
			if usage = len(args) < 2; usage {
				return errors.New("cannot make a certificate without a directory and a name or address")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return makeCertificate(args[0], args[1:], days, force, stdout, stderr)
		},
	}
	certificate.Flags().IntVar(&days, "days", days, "how long it is valid")
	certificate.Flags().BoolVar(&force, "force", false, "replace what is in the directory")
	for _, c := range []*cobra.Command{run, check, certificate, services} {
		c.Flags().SortFlags = false
		root.AddCommand(c)
	}
	root.CompletionOptions.DisableDefaultCmd = true

	err := root.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "keyfobd: %s\n%s", oneLine(err), hintLine(err))
	if usage || strings.HasPrefix(err.Error(), "unknown command") {
		return 2
	}
	return 1
}

// environOf is the environment that counts as the daemon's. That of a
// machine's is of known variables, also in the foreground: who starts it by
// hand has others.
func environOf(flags settings.Flags) []string {
	if flags.System {
		return service.Environ(true, os.Environ())
	}
	return os.Environ()
}

func runForeground(flags settings.Flags, version string, onDemand bool, stderr io.Writer, ready func()) error {
	env := environOf(flags)
	at := environment(env)
	s, err := settings.Load(flags, func(name string) string { return at[name] })
	if err != nil {
		return err
	}
	usual := "json"
	if isTerminal(stderr) {
		usual = "text"
	}
	format := s.LogFormat
	if format == "" {
		format = usual
	}
	out := stderr
	if onDemand {
		var closeLog func()
		out, closeLog = logFile(stderr, s.DataDir)
		defer closeLog()
	}
	log, err := logging.New(out, s.LogLevel, format)
	if err != nil {
		return fmt.Errorf("cannot start the log: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, Options{
		Settings:  s,
		Flags:     flags,
		Version:   version,
		OnDemand:  onDemand,
		Env:       env,
		Log:       log,
		LogFormat: usual,
		Ready:     ready,
	})
}

// runService is run under a service manager: with an environment of known
// variables, listeners that the manager opened, and a manager that is told.
// Its log goes to out.
func runService(flags settings.Flags, version string, stderr io.Writer, out *serviceLog) error {
	inherited, err := service.Listeners()
	if err != nil {
		return err
	}
	notify := service.NewNotifier()
	if err := service.KeepCapabilities(); err != nil {
		return err
	}
	env := service.Environ(flags.System, os.Environ())
	at := environment(env)
	s, err := settings.Load(flags, func(name string) string { return at[name] })
	if err != nil {
		return err
	}
	log, err := logging.New(out, s.LogLevel, cmp.Or(s.LogFormat, "json"))
	if err != nil {
		return fmt.Errorf("cannot start the log: %w", err)
	}
	out.attach(log)
	journal := false
	if f, ok := stderr.(*os.File); ok && logging.Journaled(f, os.Getenv("JOURNAL_STREAM")) {
		journal = true
		log.SetFormatter(logging.ForJournal(log.Formatter))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return service.Host(ctx, flags.System, func(ctx context.Context, ready func()) error {
		return Run(ctx, Options{Settings: s, Flags: flags, Version: version, Env: env, Log: log, LogFormat: "json", Journal: journal,
			Inherited: inherited, Notify: notify, Ready: ready})
	})
}

// oneLine is an error's text for a person: one line, "cannot …".
func oneLine(err error) string {
	text := oneText(err.Error())
	if !strings.HasPrefix(text, "cannot ") && !strings.HasPrefix(text, "unknown command") {
		text = "cannot start: " + text
	}
	return text
}

func hintLine(err error) string {
	if h := hintOf(err); h != "" {
		return "hint: " + oneText(h) + "\n"
	}
	return ""
}

func hintOf(err error) string {
	var set *settings.Error
	if errors.As(err, &set) {
		return set.Help
	}
	return cred.HintOf(err)
}

// onOneProcessor has the daemon's goroutines run on one processor at a time,
// unless GOMAXPROCS says how many. Answers take some ten microseconds each, far
// less than it takes to wake another processor for the next: with one, a
// request over a fresh connection costs three quarters of what it does with two
// (docs/speed.md), and an idle machine is woken less. What takes long runs in
// other processes, the key derivation of a passphrase above all, or waits for
// the network.
func onOneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

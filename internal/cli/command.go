package cli

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// options are the flags of the commands; each command registers those that
// it has.
type options struct {
	quiet, verbose, noStart, shadow, all, validate, offline   bool
	json, yes, force, allowRoot, keepFiles, anyUser, relative bool
	device, remote, qr, watch                                 bool
	region, roleARN, shell, note, tokenFile, assertionFile    string
	policy                                                    string
	policyARNs                                                listFlag
	program, accessKeyID, event, since, until                 string
	limit                                                     int
	expires, due                                              expiry
	duration                                                  sessionLength
	print, switchRole                                         bool
	service                                                   string
	configure                                                 configureOptions
	importing                                                 importOptions
	certificate                                               certificateOptions
	recovery                                                  bool
}

// command is one word of keyfob, or two ("grant add").
type command struct {
	name    string
	args    string // for the help: "[P]"
	short   string
	long    string
	min     int // arguments
	max     int // -1: any number
	rest    bool
	hidden  bool
	passes  bool // whatever follows is its own, flags too
	profile bool // its arguments are profiles: for completion
	flags   func(o *options, fs *flag.FlagSet)
	run     func(a *app, in invocation) int
}

// invocation is a parsed command line.
type invocation struct {
	cmd  *command
	args []string
	rest []string // behind "--"
}

// commands is every command, in the order of the help.
func commands() []*command {
	jsonFlag := func(o *options, fs *flag.FlagSet) { fs.BoolVar(&o.json, "json", o.json, "print JSON") }
	regionFlags := func(o *options, fs *flag.FlagSet) {
		fs.StringVar(&o.region, "region", "", "`region` in place of the profile's")
		fs.StringVar(&o.roleARN, "role-arn", "", "role (`ARN`) to assume with the profile")
	}
	roleARNFlag := func(o *options, fs *flag.FlagSet) {
		fs.StringVar(&o.roleARN, "role-arn", "", "role (`ARN`) to assume with the profile")
	}
	yesFlag := func(o *options, fs *flag.FlagSet) { fs.BoolVar(&o.yes, "yes", false, "do not ask") }
	both := func(fs ...func(*options, *flag.FlagSet)) func(*options, *flag.FlagSet) {
		return func(o *options, set *flag.FlagSet) {
			for _, f := range fs {
				f(o, set)
			}
		}
	}
	return []*command{
		{name: "credential-process", args: "[P]", max: 1, profile: true, short: "print credentials for an AWS config file's credential_process",
			flags: both(regionFlags, policyFlags, jsonFlag), run: (*app).credentialProcess},
		{name: "exec", args: "[P] -- CMD …", max: 1, profile: true, rest: true, short: "run a program that gets P's credentials",
			flags: both(regionFlags, policyFlags, func(o *options, fs *flag.FlagSet) {
				fs.BoolVar(&o.keepFiles, "keep-files", false, "leave AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE as they are")
			}), run: (*app).exec},
		{name: "env", args: "[P]", max: 1, profile: true, short: "print commands that set temporary credentials in a shell",
			long: "For bash and zsh: eval \"$(keyfob env P)\". Prefer exec: what env prints ends with the session.",
			flags: both(regionFlags, policyFlags, jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.StringVar(&o.shell, "shell", "bash", "for which `shell`: "+strings.Join(shells, ", "))
			}), run: (*app).env},
		{name: "add", args: "P", max: 1, profile: true, short: "store a long-lived key pair in the vault",
			long: "Asks for the pair, or reads {\"AccessKeyId\": …, \"SecretAccessKey\": …} from standard input.",
			flags: both(jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.BoolVar(&o.force, "force", false, "replace the pair that is there")
				fs.BoolVar(&o.allowRoot, "allow-root", false, "take the key of an account's root user")
			}), run: (*app).add},
		{name: "remove", args: "P", max: 1, profile: true, short: "remove P's key pair from the vault", flags: both(yesFlag, jsonFlag), run: (*app).remove},
		{name: "configure", args: "[P]", max: 1, profile: true, short: "set a profile up, asking for what it needs",
			long:  "Writes keyfob's profiles file and a credential_process line in the AWS config, and shows both before. By\nflags alone nobody is asked: --kind, what that kind needs, and --yes.",
			flags: both(configureFlags, yesFlag, jsonFlag), run: (*app).configure},
		{name: "configure undo", short: "take the newest change of configure or import back", flags: both(undoFlags, yesFlag, jsonFlag), run: (*app).configureUndo},
		{name: "import", args: "[P …]", max: -1, profile: true, short: "move key pairs that lie in plain text, or in aws-vault, into the vault",
			long:  "Each pair is checked with AWS first. What is stored is then taken out of the AWS credentials file, whose\nother lines stay as they are; a backup is kept until you say otherwise.",
			flags: both(importFlags, yesFlag, jsonFlag), run: (*app).importKeys},
		{name: "certificate add", args: "NAME", min: 1, max: 1, short: "keep a certificate and its private key in the vault, for IAM Roles Anywhere",
			long:  "roles_anywhere_certificate = vault:NAME then uses it. A passphrase is asked for, or read from standard input\nas one line.",
			flags: both(certificateFlags, jsonFlag), run: (*app).certificateAdd},
		{name: "certificate list", short: "list the certificates in the vault", flags: jsonFlag, run: (*app).certificateList},
		{name: "certificate remove", args: "NAME|FILE|URI", min: 1, max: 1, short: "remove a certificate, or a stored passphrase, from the vault", flags: both(yesFlag, jsonFlag), run: (*app).certificateRemove},
		{name: "certificate passphrase", args: "FILE|URI", min: 1, max: 1, short: "keep the passphrase or PIN of a key that stays where it is",
			flags: jsonFlag, run: (*app).certificatePassphrase},
		{name: "list", short: "list the profiles of the files and the vault", flags: jsonFlag, run: (*app).list},
		{name: "explain", args: "[P]", max: 1, profile: true, short: "show where every setting of P comes from",
			long: "With --shadow: where each AWS SDK would find credentials with AWS_PROFILE=P and without keyfob, and how that differs.",
			flags: both(regionFlags, jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.BoolVar(&o.shadow, "shadow", false, "what the AWS SDKs would do without keyfob")
			}), run: (*app).explain},
		{name: "status", short: "show what the daemon does",
			long: "With --watch a full screen of sessions and of what waits for you, which can be answered there.",
			flags: both(jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.BoolVar(&o.watch, "watch", false, "show it on the whole screen, as it changes")
			}), run: (*app).status},
		{name: "login", args: "[P]", max: 1, profile: true, short: "sign in, or give the MFA code",
			long: "With standard input not a terminal the MFA code is read from it, as one line.",
			flags: both(jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.BoolVar(&o.force, "force", false, "sign in again though the session is valid")
				fs.BoolVar(&o.device, "device", false, "show an address and a code for a browser anywhere, and open none here")
				fs.BoolVar(&o.remote, "remote", false, "sign in with a browser of another machine, and give the code that it shows")
				fs.BoolVar(&o.qr, "qr", false, "draw the address of --device or --remote as a QR code")
				fs.StringVar(&o.assertionFile, "assertion-file", "", "`file` with a SAML assertion (- for standard input)")
			}), run: (*app).login},
		{name: "console", args: "[P]", max: 1, profile: true, short: "open the AWS console, signed in as P",
			long:  "A role's console session lasts as long as its credentials, or --duration. For a user's keys it is made by\nGetFederationToken: it may do what the user may, less with --policy and --policy-arn.",
			flags: both(regionFlags, policyFlags, jsonFlag, consoleFlags), run: (*app).console},
		{name: "whoami", args: "[P]", max: 1, profile: true, short: "show who AWS says that P is, and what is wrong with its keys", flags: both(regionFlags, jsonFlag), run: (*app).whoami},
		{name: "answer", args: "[ID]", max: 1, short: "answer a question that waits (keyfob status lists them), such as a program's for a protected profile",
			flags: jsonFlag, run: (*app).answer},
		{name: "logout", args: "[P]", max: 1, profile: true, short: "forget P's sessions and revoke its grants", long: "A sign-in that several profiles share (Identity Center, OpenID Connect, aws login) ends for all of them.", flags: jsonFlag, run: (*app).logout},
		{name: "grant add", args: "P[,P2]", max: 1, profile: true, short: "open the container endpoint for P",
			flags: both(jsonFlag, policyFlags, func(o *options, fs *flag.FlagSet) {
				fs.Var(&o.expires, "expires", "`duration` after which it ends, such as 90m or 7d (default: never)")
				fs.StringVar(&o.note, "note", "", "`text` shown by grant list")
				fs.StringVar(&o.tokenFile, "token-file", "", "`file` for the token")
				fs.BoolVar(&o.anyUser, "any-user", false, "for callers of every user of this machine")
				fs.BoolVar(&o.relative, "relative", false, "an unguessable path in place of a token, as on ECS")
			}), run: (*app).grantAdd},
		{name: "grant list", short: "list the grants", flags: jsonFlag, run: (*app).grantList},
		{name: "grant remove", args: "ID …", min: 1, max: -1, short: "revoke grants", flags: jsonFlag, run: (*app).grantRemove},
		{name: "audit", short: "show who got which credentials, and who was refused",
			long: "Times are RFC 3339, a date, or how long ago (90m, 7d). With --json each line is an entry of the log.",
			flags: both(jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.StringVar(&o.program, "program", "", "`program`, by its path or the last part of it")
				fs.StringVar(&o.accessKeyID, "access-key-id", "", "`id` of the access key, as CloudTrail shows it")
				fs.StringVar(&o.event, "event", "", "`kind`: handout, refusal, confirmation or recovery-key")
				fs.StringVar(&o.since, "since", "", "the `time` of the first")
				fs.StringVar(&o.until, "until", "", "the `time` of the last")
				fs.IntVar(&o.limit, "limit", 0, "the newest `number` of them")
			}), run: (*app).audit},
		{name: "audit verify", short: "check that nobody has changed the audit log", flags: jsonFlag, run: (*app).auditVerify},
		{name: "mfa add", args: "[SERIAL]", max: -1, short: "keep the seed of a virtual MFA device in the vault, which then gives its codes",
			long:  "SERIAL is the device's ARN; without it, it is the mfa_serial of --profile. The seed is asked for, or read from\nstandard input as one line: base32 as AWS shows it, or the otpauth:// address of its QR code.",
			flags: jsonFlag, run: (*app).mfaAdd},
		{name: "mfa list", short: "list the MFA devices whose seeds are in the vault", flags: jsonFlag, run: (*app).mfaList},
		{name: "mfa remove", args: "[SERIAL]", max: 1, short: "remove the seed of an MFA device from the vault", flags: both(yesFlag, jsonFlag), run: (*app).mfaRemove},
		{name: "mfa code", args: "[SERIAL]", max: 1, short: "print a code of an MFA device whose seed is in the vault", flags: jsonFlag, run: (*app).mfaCode},
		{name: "rotate", args: "[P]", max: 1, profile: true, short: "replace P's key pair by a new one, in AWS and in the vault",
			long:  "The new key is created, tried and stored before the old one is deactivated and deleted. A rotation that was\nbroken off is finished by the next one.",
			flags: both(rotateFlags, yesFlag, jsonFlag), run: (*app).rotate},
		{name: "policy trust", args: "[P]", max: 1, profile: true, short: "print the trust policy that P's role needs", flags: both(iamPolicyFlags, roleARNFlag, jsonFlag), run: (*app).policyTrust},
		{name: "policy identity", args: "[P]", max: 1, profile: true, short: "print the policy that the identity below P's role needs", flags: both(iamPolicyFlags, roleARNFlag, jsonFlag), run: (*app).policyIdentity},
		{name: "doctor", args: "[P]", max: 1, profile: true, short: "check the whole way from a program to AWS, and say what mends it",
			long: "With P that profile is looked at too, and AWS is asked who it is. It exits 1 where something is broken.",
			flags: both(jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.BoolVar(&o.offline, "offline", false, "ask nothing outside this machine")
			}), run: (*app).doctor},
		{name: "lock", short: "forget keys and credentials in memory and hand out none until unlock", flags: jsonFlag, run: (*app).lock},
		{name: "unlock", short: "open the vault", long: "With standard input not a terminal a passphrase is read from it, as one line; with --recovery the recovery\nkey, and as a second line a new passphrase.",
			flags: both(jsonFlag, func(o *options, fs *flag.FlagSet) {
				fs.BoolVar(&o.recovery, "recovery", false, "open it with the recovery key, and set a new passphrase where it has one")
			}), run: (*app).unlock},
		{name: "vault recovery-key", short: "make a recovery key, which opens the vault when its keyring or passphrase is lost",
			long:  "Write it down, and keep it away from this machine: it is shown once and kept nowhere. A former one opens nothing\nany more. A vault with a passphrase asks for that, or reads it from standard input as one line. Without it, and with\na keyring, the daemon asks a person, whatever --yes says.",
			flags: both(yesFlag, jsonFlag), run: (*app).recoveryKey},
		{name: "reload", short: "have the daemon read its files again", flags: jsonFlag, run: (*app).reload},
		{name: "stop", short: "end the daemon", flags: jsonFlag, run: (*app).stop},
		{name: "service", args: "install|uninstall|start|stop|restart|status|logs", max: -1, passes: true, short: "run keyfobd as a service: yours, or the machine's with --system",
			long:  "It is keyfobd that does it. The general flags that say where a daemon's things are go into the service that is\ninstalled; everything else stands in its settings file.",
			flags: serviceFlags, run: (*app).service},
		{name: "link-local", args: "enable|disable|status", max: -1, passes: true, short: "have 169.254.169.254, where SDKs look without being told, on this machine",
			flags: linkLocalFlags, run: (*app).linkLocal},
		{name: "completion", args: "SHELL", min: 1, max: 1, short: "print a completion script for bash, zsh, fish or powershell", run: (*app).completion},
		{name: "version", short: "print the version", flags: jsonFlag, run: (*app).printVersion},
		{name: "help", args: "[COMMAND]", max: 2, short: "explain a command", run: (*app).help},
		{name: "overview", short: "show what is set up and what to do next: what keyfob alone does", hidden: true, flags: jsonFlag, run: (*app).overview},
		{name: "__complete", passes: true, max: -1, rest: true, hidden: true, run: (*app).complete},
		{name: "__describe", passes: true, max: -1, rest: true, hidden: true, run: (*app).describe},
	}
}

// flagSet returns the flags of cmd (nil for the general ones alone).
func (a *app) flagSet(cmd *command) *flag.FlagSet {
	fs := flag.NewFlagSet("keyfob", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f := &a.flags
	fs.StringVar(&f.Profile, "profile", f.Profile, "`profile`, as P")
	fs.StringVar(&f.Config, "config", f.Config, "keyfob's settings `file`")
	fs.StringVar(&f.DataDir, "data-dir", f.DataDir, "`directory` of the vault and the log")
	fs.StringVar(&f.Socket, "socket", f.Socket, "control `socket` of the daemon")
	fs.StringVar(&f.ProfilesFile, "profiles-file", f.ProfilesFile, "keyfob's own profiles `file`")
	fs.StringVar(&f.Keystore, "keystore", f.Keystore, "`backend` that keeps the master key")
	fs.StringVar(&f.PassphraseFile, "passphrase-file", f.PassphraseFile, "`file` with the vault's passphrase")
	fs.StringVar(&f.IMDS, "imds", f.IMDS, "`address` of a metadata endpoint, for a daemon that is started")
	fs.StringVar(&f.Container, "container", f.Container, "`address` of a container endpoint, for a daemon that is started")
	fs.StringVar(&f.Interactive, "interactive", f.Interactive, "may it ask: `auto`, never or always")
	fs.StringVar(&f.LogLevel, "log-level", f.LogLevel, "log `level` of a daemon that is started")
	fs.StringVar(&f.LogFormat, "log-format", f.LogFormat, "log `format` of a daemon that is started")
	fs.BoolVar(&a.opts.noStart, "no-start", a.opts.noStart, "start no daemon: fail where none runs")
	fs.BoolVar(&a.opts.quiet, "quiet", a.opts.quiet, "no notices: results and errors alone")
	fs.BoolVar(&a.opts.verbose, "verbose", a.opts.verbose, "say which settings, socket and daemon are used, and how long it takes")
	if cmd != nil && cmd.flags != nil {
		cmd.flags(&a.opts, fs)
	}
	return fs
}

// slow parses args, flags and arguments in any order, and runs the command.
func (a *app) slow(args []string) int {
	in, err := a.parse(args)
	if err == errHelp {
		return a.printHelp(in.cmd)
	}
	if err != nil {
		return a.fail("understand the command", err)
	}
	defer a.hangUp()
	return in.cmd.run(a, in)
}

var errHelp = fmt.Errorf("help is wanted")

func (a *app) parse(args []string) (in invocation, err error) {
	if flagsAlone(args) {
		args = append([]string{"overview"}, args...)
	}
	all := commands()
	fs := a.flagSet(nil)
	var word string // the first of a two-word command
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case in.cmd != nil && in.cmd.passes:
			in.rest = args[i:]
			if !in.cmd.hidden && slices.ContainsFunc(in.rest, func(s string) bool { return s == "-h" || s == "--help" }) {
				return in, errHelp
			}
			return in, nil
		case arg == "--":
			if in.cmd == nil {
				return in, usage("cannot run anything: -- comes after a command", "keyfob help")
			}
			if in.rest = args[i+1:]; !in.cmd.rest {
				in.args, in.rest = append(in.args, in.rest...), nil
			}
			return in, in.check()
		case arg == "-h" || arg == "--help":
			return in, errHelp
		case arg == "--version" && in.cmd == nil:
			return a.parse([]string{"version"})
		case len(arg) > 1 && arg[0] == '-':
			used, err := setFlag(fs, in.cmd, all, args[i:])
			if err != nil && in.cmd == nil && word == "" && !namesCommand(all, args) {
				return a.parse(append([]string{"overview"}, args...)) // `keyfob --config FILE --json`
			}
			if err != nil {
				return in, err
			}
			i += used - 1
		case in.cmd == nil:
			name := arg
			if word != "" {
				name = word + " " + arg
			}
			if in.cmd = find(all, name); in.cmd != nil {
				fs = a.flagSet(in.cmd)
				continue
			}
			if word == "" && len(within(all, arg)) > 0 {
				word = arg
				continue
			}
			return in, unknownCommand(all, word, arg)
		default:
			if arg == "" {
				return in, usage("cannot use an empty argument", "")
			}
			if sub := find(all, in.cmd.name+" "+arg); sub != nil && len(in.args) == 0 { // "audit verify"
				given := fs
				in.cmd, fs = sub, a.flagSet(sub)
				if err := carryOver(given, fs, sub); err != nil {
					return in, err
				}
				continue
			}
			in.args = append(in.args, arg)
		}
	}
	if in.cmd == nil && word != "" {
		return in, usage(fmt.Sprintf("cannot run %q: it needs a second word", word), "keyfob "+word+" "+strings.Join(within(all, word), "|"))
	}
	if in.cmd == nil { // general flags, with values
		return a.parse(append([]string{"overview"}, args...))
	}
	return in, in.check()
}

// flagsAlone: `keyfob`, `keyfob --json`, which is the overview.
func flagsAlone(args []string) bool {
	for _, arg := range args {
		if arg == "-h" || arg == "--help" || arg == "--version" || !strings.HasPrefix(arg, "--") || arg == "--" {
			return false
		}
	}
	return true
}

// namesCommand reports whether one of args is a command's first word.
func namesCommand(all []*command, args []string) bool {
	for _, arg := range args {
		for _, c := range all {
			if first, _, _ := strings.Cut(c.name, " "); first == arg {
				return true
			}
		}
	}
	return false
}

// carryOver judges flags that were given before a command's second word was.
func carryOver(given, fs *flag.FlagSet, cmd *command) (err error) {
	given.Visit(func(f *flag.Flag) {
		if fs.Lookup(f.Name) == nil {
			err = usage(fmt.Sprintf("cannot use --%s: keyfob %s has no such flag", f.Name, cmd.name), "keyfob "+cmd.name+" --help")
		}
	})
	return err
}

// check judges the number of arguments.
func (in invocation) check() error {
	c := in.cmd
	line := strings.TrimSpace("keyfob " + c.name + " " + c.args)
	switch {
	case c.name == "overview" && len(in.args) > 0: // `keyfob --json lsit`
		return unknownCommand(commands(), "", in.args[0])
	case c.max >= 0 && len(in.args) > c.max && c.rest:
		return usage(fmt.Sprintf("cannot tell what %q is for", in.args[c.max]), line+" (the program comes after --)")
	case c.max >= 0 && len(in.args) > c.max:
		return usage(fmt.Sprintf("cannot use the argument %q", in.args[c.max]), line)
	case len(in.args) < c.min:
		return usage(fmt.Sprintf("cannot run %s without %s", c.name, c.args), line)
	}
	return nil
}

// setFlag sets the flag that args begins with and says how many of args it
// took.
func setFlag(fs *flag.FlagSet, cmd *command, all []*command, args []string) (int, error) {
	name, value, joined := strings.Cut(strings.TrimPrefix(args[0], "-"), "=")
	name, double := strings.CutPrefix(name, "-")
	f := fs.Lookup(name)
	if f == nil || !double {
		where := "keyfob"
		if cmd != nil && !cmd.hidden {
			where += " " + cmd.name
		}
		if cmd == nil && knownToSome(all, name) {
			return 0, usage(fmt.Sprintf("cannot use %s before the command", args[0]), "keyfob COMMAND --"+name)
		}
		message := fmt.Sprintf("cannot use %s: %s has no such flag", strings.SplitN(args[0], "=", 2)[0], where)
		if f != nil {
			return 0, usage(message, "--"+name)
		}
		var names []string
		fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
		if near := nearest(name, names); near != "" {
			return 0, usage(message, "--"+near)
		}
		return 0, usage(message, where+" --help")
	}
	used := 1
	if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		if !joined {
			value = "true"
		}
	} else {
		if !joined {
			if len(args) < 2 {
				return 0, usage("cannot use --"+name+": it needs a value", "")
			}
			value, used = args[1], 2
		}
		if value == "" {
			// An unset shell variable, most likely: the default it would
			// fall to may be anything.
			return 0, usage("cannot use --"+name+": its value is empty", "")
		}
	}
	if err := fs.Set(name, value); err != nil {
		return 0, usage(fmt.Sprintf("cannot use --%s %q: %v", name, value, err), "")
	}
	return used, nil
}

func knownToSome(all []*command, name string) bool {
	for _, c := range all {
		if c.flags != nil {
			var o options
			fs := flag.NewFlagSet("", flag.ContinueOnError)
			c.flags(&o, fs)
			if fs.Lookup(name) != nil {
				return true
			}
		}
	}
	return false
}

func find(all []*command, name string) *command {
	for _, c := range all {
		if c.name == name {
			return c
		}
	}
	return nil
}

// within returns the second words of the commands that begin with word.
func within(all []*command, word string) []string {
	var second []string
	for _, c := range all {
		if w, ok := strings.CutPrefix(c.name, word+" "); ok {
			second = append(second, w)
		}
	}
	return second
}

func unknownCommand(all []*command, word, arg string) error {
	name := strings.TrimSpace(word + " " + arg)
	var names []string
	for _, c := range all {
		switch first, second, two := strings.Cut(c.name, " "); {
		case c.hidden:
		case word == "" && two:
			if !slices.Contains(names, first) {
				names = append(names, first)
			}
		case word == "":
			names = append(names, first)
		case first == word:
			names = append(names, second)
		}
	}
	hint := "keyfob help"
	if word != "" {
		hint = "keyfob " + word + " " + strings.Join(names, "|")
	}
	if near := nearest(arg, names); near != "" {
		hint = strings.TrimSpace("keyfob " + word + " " + near)
		hint = strings.ReplaceAll(hint, "  ", " ")
	}
	return usage(fmt.Sprintf("cannot run %q: there is no such command", name), hint)
}

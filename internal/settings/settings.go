// Package settings decides keyfob's own settings: command-line flag over
// environment over config.toml over default (CONTRACT §1). keyfob and
// keyfobd both read them here, so that they always agree on the socket. It
// imports nothing of ours.
package settings

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Flags are the settings that were named on the command line; "" is unset.
type Flags struct {
	Config, DataDir, Socket, Profile, ProfilesFile string
	Keystore, PassphraseFile                       string
	IMDS, Container                                string
	Interactive, LogLevel, LogFormat               string
	// System is the daemon of a machine: its usual places are the machine's,
	// and no user's environment names others.
	System bool
}

// Settings are the decided settings. They are immutable after Load.
type Settings struct {
	System          bool   // Flags.System
	ConfigFile      string // absolute; need not exist
	ConfigFound     bool
	DataDir         string // absolute
	Socket          string // absolute path, or a pipe's name on Windows
	SocketExplicit  bool   // by flag, KEYFOB_SOCKET or config.toml: no other is tried
	SystemSocket    string // a system daemon's, "" where there is none
	Profile         string // flag, AWS_PROFILE, AWS_DEFAULT_PROFILE, config.toml, "default"
	ProfileFrom     string // "--profile", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", the file, or "default"
	ProfilesFile    string
	AWSConfigFile   string
	AWSCredentials  string
	Keystore        string // a backend's name or "auto"
	PassphraseFile  string
	Endpoints       []Endpoint
	ProfileRules    []ProfileRule
	Interactive     string // auto, never, always
	SignInTimeout   time.Duration
	ProcessTimeout  time.Duration
	IdleExit        time.Duration
	LogLevel        string
	LogFormat       string // text, json, or "" for text on a terminal, else json
	FederationURL   string
	ShareSSOCache   bool
	BrowserHeadless bool
	BrowserArgs     []string
	Audit           Audit
	Metrics         string // "unix:/path", a loopback address:port, or "" for none
	Machine         Machine
	TPMDevice       string // the TPM's device or socket, "" for the usual one
	PKCS11Module    string // of pkcs11: URIs that name none, "" for p11-kit's

	passphrase string
	file       readSettings // for the places of what turns out to be wrong later
}

// RevealPassphrase is KEYFOB_PASSPHRASE, "" if unset.
func (s *Settings) RevealPassphrase() string { return s.passphrase }

// Bad is an *Error about the value of a setting, by its key in config.toml
// ("endpoint[0].policy"; a Key method gives the first part): for whoever
// finds out later that it can't be used. An empty key is a setting that did
// not come from the file.
func (s *Settings) Bad(key, help, format string, args ...any) *Error {
	if key == "" || !s.ConfigFound {
		return &Error{Message: "cannot use the settings: " + fmt.Sprintf(format, args...), Help: help}
	}
	return s.file.bad(key, help, format, args...)
}

// Endpoint is one listener.
type Endpoint struct {
	Kind              string // imds or container
	Listen            string // address:port, an address in its shortest form
	Profile           string
	Hosts             []string
	IMDSv1            bool
	AllowUsers        []string // nil where the setting is not there
	AllowGroups       []string
	AllowPrograms     []Program // nil where the setting is not there
	AllowUnidentified bool
	TLSCert, TLSKey   string // absolute paths of PEM files, both or none; of a container endpoint alone
	Users             []EndpointUser
	Policy            string // absolute path of a file, "" for none
	PolicyARNs        []string
	Metadata          Metadata

	key string
}

// Key is the endpoint's place in config.toml, "" where it came by a flag or
// the environment.
func (e *Endpoint) Key() string { return e.key }

// Program is one program of allow_programs.
type Program struct {
	Path   string // absolute
	SHA256 string // of its content in hex, "" for any
}

// EndpointUser gives one user another profile than the endpoint's.
type EndpointUser struct{ User, Profile string }

// Metadata is what an endpoint tells about "the instance" instead of what it
// would find out or make up; empty fields are left to it.
type Metadata struct {
	InstanceID, ImageID, InstanceType string
	Hostname, LocalIPv4, IPv6         string
	PublicIPv4, PublicHostname, MAC   string
	Region, Zone, ZoneID              string
	AccountID, Partition              string
	VPCID, SubnetID, ReservationID    string
	SecurityGroups                    []string
	Tags                              map[string]string
	UserDataFile                      string // absolute path, "" for none
}

// ProfileRule holds for the profiles whose name matches.
type ProfileRule struct {
	Name              string   // a glob
	AllowUsers        []string // nil where the setting is not there
	AllowGroups       []string
	AllowPrograms     []Program // nil where the setting is not there
	Protected         bool
	SessionPolicy     string // absolute path of a file, "" for none
	SessionPolicyARNs []string

	key string
}

// Key is the rule's place in config.toml.
func (r *ProfileRule) Key() string { return r.key }

// Audit is how the audit log is kept.
type Audit struct {
	Off     bool
	MaxSize int64  // of one file, in bytes; 0 for the usual
	Keep    int    // files besides the one that is written; 0 for the usual
	Journal bool   // each line to journald too
	Syslog  string // "unix:///dev/log", "udp://HOST:PORT", "tcp://…", "tls://…"; "" for none
	OTLP    string // full URL of a collector's logs, "" for none
}

// Error is a setting that can't be used, with the place where it stands.
type Error struct {
	Message string
	File    string // "" for a flag or variable
	Line    int    // 0 when not known
	Help    string
}

func (e *Error) Error() string {
	switch {
	case e.File != "" && e.Line > 0:
		return fmt.Sprintf("cannot use %s:%d: %s", e.File, e.Line, e.Message)
	case e.File != "":
		return fmt.Sprintf("cannot use %s: %s", e.File, e.Message)
	}
	return e.Message
}

// Hint says what to do.
func (e *Error) Hint() string { return e.Help }

// Load decides all settings. getenv is os.Getenv or a stand-in; blank
// variables count as unset. Errors are of type *Error: the first of what is
// wrong.
func Load(f Flags, getenv func(string) string) (*Settings, error) {
	return firstOf(load(f, getenv, true))
}

// LoadWithoutFile is Load as if there were no config.toml: for a client that
// finds a broken one while a daemon runs that read a good one.
func LoadWithoutFile(f Flags, getenv func(string) string) (*Settings, error) {
	return firstOf(load(f, getenv, false))
}

// Check is Load with everything that is wrong, by file and line. Settings is
// nil only where nothing could be decided; with errors it is good for looking
// on, and not for use.
func Check(f Flags, getenv func(string) string) (*Settings, []*Error) {
	s, errs := load(f, getenv, true)
	slices.SortStableFunc(errs, func(a, b *Error) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) })
	return s, errs
}

func firstOf(s *Settings, errs []*Error) (*Settings, error) {
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return s, nil
}

func load(f Flags, getenv func(string) string, withFile bool) (*Settings, []*Error) {
	env := func(name string) string { return strings.TrimSpace(getenv(name)) }
	dirs, err := placesOf(f.System, env)
	if err != nil {
		return nil, []*Error{err}
	}
	s := &Settings{System: f.System, passphrase: getenv("KEYFOB_PASSPHRASE")}
	d := decider{env: env, home: dirs.home, file: &s.file}

	explicit := first(f.Config, env("KEYFOB_CONFIG"))
	s.ConfigFile = abs(first(explicit, filepath.Join(dirs.config, "config.toml")), dirs.home)
	if withFile {
		s.file, s.ConfigFound, d.problems = readFile(s.ConfigFile)
		if !s.ConfigFound && explicit != "" && len(d.problems) == 0 {
			d.problem(&Error{Message: fmt.Sprintf("cannot read the settings file %s: it does not exist", s.ConfigFile)})
		}
	}
	file := &s.file

	s.DataDir = d.path(f.DataDir, "KEYFOB_DATA_DIR", file.DataDir, dirs.data)
	s.ProfilesFile = d.path(f.ProfilesFile, "KEYFOB_PROFILES_FILE", file.ProfilesFile, filepath.Join(dirs.config, "profiles"))
	s.AWSConfigFile = d.path("", "AWS_CONFIG_FILE", file.AWS.ConfigFile, filepath.Join(dirs.aws, "config"))
	s.AWSCredentials = d.path("", "AWS_SHARED_CREDENTIALS_FILE", file.AWS.CredentialsFile, filepath.Join(dirs.aws, "credentials"))
	s.PassphraseFile = d.path(f.PassphraseFile, "KEYFOB_PASSPHRASE_FILE", file.Keystore.PassphraseFile, s.handedOver(env))
	s.TPMDevice = d.path("", "KEYFOB_TPM_DEVICE", file.TPM.Device, "")
	s.PKCS11Module = d.path("", "KEYFOB_PKCS11_MODULE", file.PKCS11.Module, "")
	d.problem(s.chooseSocket(d.path(f.Socket, "KEYFOB_SOCKET", file.Socket, ""), dirs))
	s.Profile, s.ProfileFrom = chooseProfile(f.Profile, env, file.profile, s.ConfigFile)

	for _, c := range []struct {
		flag, flagValue, env, key, inFile, def string
		allowed                                []string
		to                                     *string
	}{
		{"--keystore", f.Keystore, "KEYFOB_KEYSTORE", "keystore.backend", file.Keystore.Backend, s.usualBackend(), Backends, &s.Keystore},
		{"--interactive", f.Interactive, "KEYFOB_INTERACTIVE", "interactive", file.Interactive, "auto", []string{"auto", "never", "always"}, &s.Interactive},
		{"--log-level", f.LogLevel, "KEYFOB_LOG_LEVEL", "log.level", file.Log.Level, "info", []string{"trace", "debug", "info", "warn", "warning", "error"}, &s.LogLevel},
		{"--log-format", f.LogFormat, "KEYFOB_LOG_FORMAT", "log.format", file.Log.Format, "", []string{"", "text", "json"}, &s.LogFormat},
	} {
		var from place
		*c.to, from = d.choose(place{flag: c.flag}, c.flagValue, c.env, c.key, c.inFile, c.def)
		if !slices.Contains(c.allowed, *c.to) {
			d.problem(d.bad(from, "one of "+strings.TrimPrefix(strings.Join(c.allowed, ", "), ", "), *c.to))
			*c.to = c.def
		}
	}
	for _, c := range []struct {
		env, key, inFile string
		def              time.Duration
		to               *time.Duration
	}{
		{"KEYFOB_SIGNIN_TIMEOUT", "signin_timeout", file.SignInTimeout, 10 * time.Minute, &s.SignInTimeout},
		{"KEYFOB_PROCESS_TIMEOUT", "process_timeout", file.ProcessTimeout, time.Minute, &s.ProcessTimeout},
		{"KEYFOB_IDLE_EXIT", "idle_exit", file.IdleExit, 12 * time.Hour, &s.IdleExit},
	} {
		value, from := d.choose(place{}, "", c.env, c.key, c.inFile, "")
		if *c.to = c.def; value == "" {
			continue
		}
		v, err := time.ParseDuration(value)
		if err != nil || v <= 0 {
			d.problem(d.bad(from, "a duration such as 90s, 10m or 12h", value))
			continue
		}
		*c.to = v
	}
	var from place
	if s.FederationURL, from = d.choose(place{}, "", "KEYFOB_FEDERATION_ENDPOINT", "console.federation_endpoint", file.Console.FederationEndpoint, ""); s.FederationURL != "" && !isURL(s.FederationURL) {
		d.problem(d.bad(from, "a full URL, such as https://signin.aws.amazon.com/federation", s.FederationURL))
	}
	s.ShareSSOCache = file.ShareSSOCache
	s.BrowserHeadless = d.yes("KEYFOB_BROWSER_HEADLESS", file.Browser.Headless)
	s.BrowserArgs = file.Browser.Args
	if v := env("KEYFOB_BROWSER_ARGS"); v != "" {
		s.BrowserArgs = strings.Fields(v)
	}
	s.chooseMachine(&d)
	s.chooseEndpoints(f, env, &d)
	s.chooseRules(&d)
	s.chooseAudit(&d)
	s.chooseMetrics(&d)
	return s, d.problems
}

// isURL reports whether s is a full HTTP URL without anything after its path.
func isURL(s string) bool {
	_, rest, ok := strings.Cut(s, "://")
	host, _, _ := strings.Cut(rest, "/")
	return ok && host != "" && (strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")) && !strings.ContainsAny(s, " \t#?")
}

// place is where a setting was taken from: one of the three.
type place struct{ flag, env, key string }

// decider chooses values by precedence, and words what can't be used.
type decider struct {
	file     *readSettings
	env      func(string) string
	home     string
	problems []*Error
}

// problem notes what is wrong; nil is nothing.
func (d *decider) problem(e *Error) {
	if e != nil {
		d.problems = append(d.problems, e)
	}
}

// wrong notes a setting of the file that can't be used.
func (d *decider) wrong(key, help, format string, args ...any) {
	d.problem(d.file.bad(key, help, format, args...))
}

// yes is a setting that is a boolean.
func (d *decider) yes(envName string, inFile bool) bool {
	if v := d.env(envName); v != "" {
		return v == "1" || strings.EqualFold(v, "true")
	}
	return inFile
}

// choose returns the value that wins, and where it stands.
func (d *decider) choose(flag place, flagValue, envName, key, inFile, def string) (string, place) {
	switch {
	case flagValue != "":
		return flagValue, flag
	case envName != "" && d.env(envName) != "":
		return d.env(envName), place{env: envName}
	case inFile != "":
		return inFile, place{key: key}
	}
	return def, place{}
}

func (d *decider) bad(from place, help, value string) *Error {
	switch {
	case from.key != "":
		return d.file.bad(from.key, help, "%s is %q", from.key, value)
	case from.env != "":
		return &Error{Message: fmt.Sprintf("cannot use %s=%q", from.env, value), Help: help}
	}
	return &Error{Message: fmt.Sprintf("cannot use %s %q", from.flag, value), Help: help}
}

// path decides a path. One by flag or variable is relative to the current
// directory, one of the file to the file's.
func (d *decider) path(flag, envName, inFile, def string) string {
	v, from := d.choose(place{}, flag, envName, "file", inFile, def)
	switch {
	case v == "":
		return ""
	case from.key != "":
		return d.filePath(v)
	}
	return abs(v, d.home)
}

// filePath is a path of config.toml.
func (d *decider) filePath(v string) string {
	if !filepath.IsAbs(v) && v != "~" && !strings.HasPrefix(v, "~/") && !strings.HasPrefix(v, `\\`) {
		v = filepath.Join(filepath.Dir(d.file.path), v)
	}
	return abs(v, d.home)
}

// Backends are the names that the setting keystore takes.
var Backends = []string{"auto", "keychain", "wincred", "secret-service", "kwallet", "keyctl", "pass", "passphrase"}

func chooseProfile(flag string, env func(string) string, fromFile, file string) (profile, from string) {
	switch {
	case flag != "":
		return flag, "--profile"
	case env("AWS_PROFILE") != "":
		return env("AWS_PROFILE"), "AWS_PROFILE"
	case env("AWS_DEFAULT_PROFILE") != "":
		return env("AWS_DEFAULT_PROFILE"), "AWS_DEFAULT_PROFILE"
	case fromFile != "":
		return fromFile, file
	}
	return "default", "default"
}

func abs(p, home string) string {
	if p == "~" || strings.HasPrefix(p, "~/") {
		p = filepath.Join(home, p[1:])
	}
	if a, err := filepath.Abs(p); err == nil {
		return a
	}
	return p
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

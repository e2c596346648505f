// Package settings decides keyfob's own settings: command-line flag over
// environment over config.toml over default (CONTRACT §1). keyfob and
// keyfobd both read them here, so that they always agree on the socket. It
// imports nothing of ours.
package settings

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Flags are the settings that were named on the command line; "" is unset.
type Flags struct {
	Config, DataDir, Socket, Profile, ProfilesFile string
	Keystore, PassphraseFile                       string
	IMDS, Container                                string
	Interactive, LogLevel, LogFormat               string
}

// Settings are the decided settings. They are immutable after Load.
type Settings struct {
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

	passphrase string
}

// RevealPassphrase is KEYFOB_PASSPHRASE, "" if unset.
func (s *Settings) RevealPassphrase() string { return s.passphrase }

// Endpoint is one listener.
type Endpoint struct {
	Kind              string // imds or container
	Listen            string // address:port
	Profile           string
	Hosts             []string
	IMDSv1            bool
	AllowUsers        []string
	AllowPrograms     []string
	AllowUnidentified bool
}

// ProfileRule holds for the profiles whose name matches.
type ProfileRule struct {
	Name          string // a glob
	AllowUsers    []string
	AllowPrograms []string
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
// variables count as unset. Errors are of type *Error.
func Load(f Flags, getenv func(string) string) (*Settings, error) {
	return load(f, getenv, true)
}

// LoadWithoutFile is Load as if there were no config.toml: for a client that
// finds a broken one while a daemon runs that read a good one.
func LoadWithoutFile(f Flags, getenv func(string) string) (*Settings, error) {
	return load(f, getenv, false)
}

func load(f Flags, getenv func(string) string, withFile bool) (*Settings, error) {
	env := func(name string) string { return strings.TrimSpace(getenv(name)) }
	dirs, err := platformDirs(env)
	if err != nil {
		return nil, err
	}
	s := &Settings{passphrase: getenv("KEYFOB_PASSPHRASE")}

	explicit := first(f.Config, env("KEYFOB_CONFIG"))
	s.ConfigFile = abs(first(explicit, filepath.Join(dirs.config, "config.toml")), dirs.home)
	var file readSettings
	if withFile {
		if file, s.ConfigFound, err = readFile(s.ConfigFile); err != nil {
			return nil, err
		}
		if !s.ConfigFound && explicit != "" {
			return nil, &Error{Message: fmt.Sprintf("cannot read the settings file %s: it does not exist", s.ConfigFile)}
		}
	}

	path := func(values ...string) string {
		if v := first(values...); v != "" {
			return abs(v, dirs.home)
		}
		return ""
	}
	s.DataDir = path(f.DataDir, env("KEYFOB_DATA_DIR"), file.DataDir, dirs.data)
	s.ProfilesFile = path(f.ProfilesFile, env("KEYFOB_PROFILES_FILE"), file.ProfilesFile, filepath.Join(dirs.config, "profiles"))
	s.AWSConfigFile = path(env("AWS_CONFIG_FILE"), file.AWS.ConfigFile, filepath.Join(dirs.home, ".aws", "config"))
	s.AWSCredentials = path(env("AWS_SHARED_CREDENTIALS_FILE"), file.AWS.CredentialsFile, filepath.Join(dirs.home, ".aws", "credentials"))
	s.PassphraseFile = path(f.PassphraseFile, env("KEYFOB_PASSPHRASE_FILE"), file.Keystore.PassphraseFile)
	if err := s.chooseSocket(first(f.Socket, env("KEYFOB_SOCKET"), file.Socket), dirs); err != nil {
		return nil, err
	}
	s.Profile, s.ProfileFrom = chooseProfile(f.Profile, env, file.profile, s.ConfigFile)

	s.Keystore = first(f.Keystore, env("KEYFOB_KEYSTORE"), file.Keystore.Backend, "auto")
	s.Interactive = first(f.Interactive, env("KEYFOB_INTERACTIVE"), file.Interactive, "auto")
	s.LogLevel = first(f.LogLevel, env("KEYFOB_LOG_LEVEL"), file.Log.Level, "info")
	s.LogFormat = first(f.LogFormat, env("KEYFOB_LOG_FORMAT"), file.Log.Format)
	for _, c := range []struct {
		what, value string
		allowed     []string
	}{
		{"keystore", s.Keystore, Backends},
		{"interactive", s.Interactive, []string{"auto", "never", "always"}},
		{"log level", s.LogLevel, []string{"trace", "debug", "info", "warn", "warning", "error"}},
		{"log format", s.LogFormat, []string{"", "text", "json"}},
	} {
		if !contains(c.allowed, c.value) {
			return nil, &Error{Message: fmt.Sprintf("cannot use %s %q", c.what, c.value),
				Help: "one of " + strings.TrimPrefix(strings.Join(c.allowed, ", "), ", ")}
		}
	}
	for _, d := range []struct {
		name, value string
		def         time.Duration
		to          *time.Duration
	}{
		{"signin_timeout", first(env("KEYFOB_SIGNIN_TIMEOUT"), file.SignInTimeout), 10 * time.Minute, &s.SignInTimeout},
		{"process_timeout", first(env("KEYFOB_PROCESS_TIMEOUT"), file.ProcessTimeout), time.Minute, &s.ProcessTimeout},
		{"idle_exit", first(env("KEYFOB_IDLE_EXIT"), file.IdleExit), 12 * time.Hour, &s.IdleExit},
	} {
		*d.to = d.def
		if d.value == "" {
			continue
		}
		v, err := time.ParseDuration(d.value)
		if err != nil || v <= 0 {
			return nil, &Error{Message: fmt.Sprintf("cannot use %s %q", d.name, d.value), Help: "a duration such as 90s, 10m or 12h"}
		}
		*d.to = v
	}
	s.FederationURL = first(env("KEYFOB_FEDERATION_ENDPOINT"), file.Console.FederationEndpoint)
	s.ShareSSOCache = file.ShareSSOCache
	s.BrowserHeadless = file.Browser.Headless
	if v := env("KEYFOB_BROWSER_HEADLESS"); v != "" {
		s.BrowserHeadless = v == "1" || strings.EqualFold(v, "true")
	}
	s.BrowserArgs = file.Browser.Args
	if v := env("KEYFOB_BROWSER_ARGS"); v != "" {
		s.BrowserArgs = strings.Fields(v)
	}
	s.ProfileRules = file.rules
	if err := s.chooseEndpoints(f, env, file.Endpoint); err != nil {
		return nil, err
	}
	return s, nil
}

// Backends are the names that the setting keystore takes.
var Backends = []string{"auto", "keychain", "wincred", "secret-service", "kwallet", "keyctl", "pass", "passphrase"}

// chooseEndpoints: an address by flag or environment is one endpoint of its
// kind for the default profile, in place of the file's of that kind.
func (s *Settings) chooseEndpoints(f Flags, env func(string) string, fromFile []fileEndpoint) error {
	given := map[string]string{
		"imds":      first(f.IMDS, env("KEYFOB_IMDS")),
		"container": first(f.Container, env("KEYFOB_CONTAINER")),
	}
	for _, kind := range []string{"imds", "container"} {
		if given[kind] != "" {
			e := Endpoint{Kind: kind, Listen: given[kind]}
			if kind == "imds" {
				e.Profile = s.Profile
			}
			s.Endpoints = append(s.Endpoints, e)
			continue
		}
		for _, fe := range fromFile {
			if fe.Kind == kind {
				s.Endpoints = append(s.Endpoints, Endpoint(fe))
			}
		}
	}
	seen := map[string]bool{}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if _, err := splitListen(e.Listen); err != nil {
			return &Error{Message: fmt.Sprintf("cannot listen on %q: %v", e.Listen, err), Help: "an address and a port, such as 127.0.0.1:9911"}
		}
		if e.Kind == "imds" && e.Profile == "" {
			e.Profile = s.Profile
		}
		if seen[e.Listen] && !strings.HasSuffix(e.Listen, ":0") {
			return &Error{Message: fmt.Sprintf("cannot listen on %s twice", e.Listen)}
		}
		seen[e.Listen] = true
	}
	return nil
}

// splitListen refuses a missing port and an address that would be every
// interface: whoever wants that names each address.
func splitListen(addr string) (string, error) {
	i := strings.LastIndexByte(addr, ':')
	if i < 0 {
		return "", errors.New("it has no port")
	}
	host, port := strings.Trim(addr[:i], "[]"), addr[i+1:]
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", fmt.Errorf("%q is no port", port)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		return "", errors.New("it would be open on every interface")
	}
	return host, nil
}

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

// maxSocketPath is what sun_path holds, less the NUL: 108 bytes on Linux,
// 104 on macOS and the BSDs.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

func (s *Settings) chooseSocket(explicit string, d dirs) error {
	if runtime.GOOS == "windows" {
		s.SocketExplicit = explicit != ""
		s.Socket = explicit
		if explicit == "" {
			sid, err := userSID()
			if err != nil {
				return &Error{Message: fmt.Sprintf("cannot tell which user this is: %v", err)}
			}
			s.Socket = `\\.\pipe\keyfob-` + sid
		}
		return nil
	}
	s.SystemSocket = systemSocket
	if explicit != "" {
		s.Socket, s.SocketExplicit = abs(explicit, d.home), true
		if len(s.Socket) > maxSocketPath() {
			return &Error{Message: fmt.Sprintf("cannot use the socket %s: its path has %d bytes, a socket's may have %d", s.Socket, len(s.Socket), maxSocketPath()),
				Help: "a shorter path with --socket or KEYFOB_SOCKET"}
		}
		return nil
	}
	s.Socket = defaultSocket(d.runtime, s.DataDir)
	if len(s.Socket) > maxSocketPath() {
		return &Error{Message: fmt.Sprintf("cannot use the socket %s: its path has %d bytes, a socket's may have %d", s.Socket, len(s.Socket), maxSocketPath()),
			Help: "set XDG_RUNTIME_DIR, or a shorter path with --socket or KEYFOB_SOCKET"}
	}
	return nil
}

const systemSocket = "/run/keyfob/keyfob.sock"

func defaultSocket(runtimeDir, dataDir string) string {
	if runtimeDir != "" {
		if p := filepath.Join(runtimeDir, "keyfob", "keyfob.sock"); len(p) <= maxSocketPath() {
			return p
		}
	}
	return filepath.Join(dataDir, "keyfob.sock")
}

type dirs struct{ home, config, data, runtime string }

// platformDirs gives the directories by the platform's custom. A relative
// XDG variable is ignored, as the XDG base directory specification demands.
func platformDirs(env func(string) string) (dirs, error) {
	var d dirs
	d.home = env("HOME")
	if runtime.GOOS == "windows" {
		d.home = first(env("USERPROFILE"), d.home)
	}
	if d.home == "" {
		return d, &Error{Message: "cannot tell where the home directory is", Help: "set HOME"}
	}
	xdg := func(name, def string) string {
		if v := env(name); filepath.IsAbs(v) {
			return v
		}
		return def
	}
	switch runtime.GOOS {
	case "windows":
		local := first(env("LOCALAPPDATA"), filepath.Join(d.home, "AppData", "Local"))
		d.config, d.data = filepath.Join(local, "keyfob"), filepath.Join(local, "keyfob")
	case "darwin":
		support := filepath.Join(d.home, "Library", "Application Support")
		d.config = filepath.Join(xdg("XDG_CONFIG_HOME", support), "keyfob")
		d.data = filepath.Join(xdg("XDG_DATA_HOME", support), "keyfob")
		d.runtime = xdg("XDG_RUNTIME_DIR", "")
	default:
		d.config = filepath.Join(xdg("XDG_CONFIG_HOME", filepath.Join(d.home, ".config")), "keyfob")
		d.data = filepath.Join(xdg("XDG_DATA_HOME", filepath.Join(d.home, ".local", "share")), "keyfob")
		d.runtime = xdg("XDG_RUNTIME_DIR", "")
	}
	return d, nil
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

func contains(list []string, v string) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

package command

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/user"
	"strconv"
	"strings"
)

const (
	// depthVariable tells a keyfob in the program that the daemon waits for
	// it: to ask the daemon for credentials would be a loop.
	depthVariable = "KEYFOB_CALL_DEPTH"
	// marker is how what a program has started is known again.
	marker = "KEYFOB_CALL_ID"
)

// childEnv is the environment of every program, from that of the daemon.
func childEnv(environ []string, windows bool) []string {
	var env []string
	seen := map[string]bool{}
	depth := 0
	for i := len(environ) - 1; i >= 0; i-- { // the last of a name counts
		name, value, ok := strings.Cut(environ[i], "=")
		if !ok || name == "" {
			continue
		}
		key := name
		if windows {
			key = strings.ToUpper(name)
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		if key == depthVariable {
			depth, _ = strconv.Atoi(strings.TrimSpace(value))
		}
		if forProgram(key, windows) {
			env = append(env, environ[i])
		}
	}
	if variable(env, "PATH") == "" && !windows {
		env = append(env, "PATH=/usr/local/bin:/usr/bin:/bin")
	}
	if variable(env, homeVariable) == "" {
		if u, err := user.Current(); err == nil && u.HomeDir != "" {
			env = append(env, homeVariable+"="+u.HomeDir)
		}
	}
	return append(env, depthVariable+"="+strconv.Itoa(max(depth, 0)+1))
}

// forProgram is the allow-list of CONTRACT.md §2. name is in upper case on
// Windows.
func forProgram(name string, windows bool) bool {
	switch name {
	case "HOME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "LOGNAME", "USERNAME", "LANG", "LANGUAGE",
		"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
		"http_proxy", "https_proxy", "no_proxy", "all_proxy",
		"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_STS_REGIONAL_ENDPOINTS",
		"AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT":
		return true
	case "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "PROGRAMDATA", "PROGRAMFILES",
		"TEMP", "TMP", "PATHEXT", "COMSPEC":
		return windows // what Windows programs do not run without
	case "KEYFOB_PASSPHRASE", "KEYFOB_PASSPHRASE_FILE": // they open the vault
		return false
	case depthVariable, marker, "KEYFOB_READY_FD", "KEYFOB_EXEC_FILES": // they speak of one process
		return false
	}
	for _, prefix := range []string{"KEYFOB_", "LC_", "XDG_", "AWS_ENDPOINT_URL"} {
		if strings.HasPrefix(name, prefix) {
			return !strings.HasPrefix(name, "KEYFOB_OUTER_")
		}
	}
	return false
}

// variable is the value of a variable, "" when it is not set.
func variable(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		n, value, _ := strings.Cut(env[i], "=")
		if n == name || foldNames && strings.EqualFold(n, name) {
			return value
		}
	}
	return ""
}

// workDir is the person's home where it is there: the daemon's own directory
// is not always one that a program can work in.
func workDir(home string) string {
	if home != "" {
		if info, err := os.Stat(home); err == nil && info.IsDir() {
			return home
		}
	}
	return rootDir()
}

func newMark() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

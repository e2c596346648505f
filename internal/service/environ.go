package service

import (
	"path/filepath"
	"runtime"
	"strings"
)

// forDaemon says which variables a daemon under a service manager takes of its
// environment (CONTRACT.md §2): never those that choose credentials.
func forDaemon(name string) bool {
	switch strings.ToUpper(name) {
	case "HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
		"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
		"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE",
		"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_STS_REGIONAL_ENDPOINTS",
		"CREDENTIALS_DIRECTORY",
		"USERPROFILE", "USERNAME", "LOCALAPPDATA", "APPDATA", "PROGRAMDATA", "SYSTEMROOT", "TEMP", "TMP", "PATHEXT", "COMSPEC":
		return true
	case "KEYFOB_CALL_DEPTH", "KEYFOB_READY_FD": // they speak of one command
		return false
	}
	for _, prefix := range []string{"KEYFOB_", "LC_", "XDG_", "AWS_ENDPOINT_URL"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// Environ is what counts of env, as os.Environ gives it, for a daemon under a
// service manager. The machine's finds its own places by it, whatever else
// is set: settings and profiles in /etc/keyfob, data in /var/lib/keyfob, the
// control socket in /run/keyfob, and the same by custom on macOS and Windows.
func Environ(system bool, env []string) []string {
	kept := map[string]string{}
	var order []string
	programData := ""
	set := func(name, value string) {
		if _, known := kept[name]; !known {
			order = append(order, name)
		}
		kept[name] = value
	}
	for _, e := range env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			continue
		}
		if strings.EqualFold(name, "PROGRAMDATA") {
			programData = value
		}
		if forDaemon(name) {
			set(name, value)
		}
	}
	if system {
		for _, p := range systemPlaces(programData) {
			set(p[0], p[1])
		}
	}
	out := make([]string, 0, len(order))
	for _, name := range order {
		out = append(out, name+"="+kept[name])
	}
	return out
}

func systemPlaces(programData string) [][2]string {
	switch runtime.GOOS {
	case "windows":
		return [][2]string{{"USERPROFILE", filepath.Join(programData, "keyfob")}, {"LOCALAPPDATA", programData}}
	case "darwin":
		const support = "/Library/Application Support"
		return [][2]string{{"HOME", support + "/keyfob"}, {"XDG_CONFIG_HOME", support}, {"XDG_DATA_HOME", support}, {"XDG_RUNTIME_DIR", "/var/run"}}
	}
	return [][2]string{{"HOME", "/var/lib/keyfob"}, {"XDG_CONFIG_HOME", "/etc"}, {"XDG_DATA_HOME", "/var/lib"}, {"XDG_RUNTIME_DIR", "/run"}}
}

package service

import (
	"path/filepath"
	"runtime"
)

// SystemEnv is the environment by which the machine's daemon finds its own
// places: settings and profiles in /etc/keyfob, data in /var/lib/keyfob, the
// control socket in /run/keyfob, and the same by custom on macOS and Windows.
// What a person's variables or home say of these does not count; KEYFOB_*
// variables of the unit do.
func SystemEnv(getenv func(string) string) func(string) string {
	var own map[string]string
	switch runtime.GOOS {
	case "windows":
		data := getenv("ProgramData")
		own = map[string]string{"USERPROFILE": filepath.Join(data, "keyfob"), "LOCALAPPDATA": data}
	case "darwin":
		const support = "/Library/Application Support"
		own = map[string]string{"HOME": support + "/keyfob", "XDG_CONFIG_HOME": support, "XDG_DATA_HOME": support, "XDG_RUNTIME_DIR": "/var/run"}
	default:
		own = map[string]string{"HOME": "/var/lib/keyfob", "XDG_CONFIG_HOME": "/etc", "XDG_DATA_HOME": "/var/lib", "XDG_RUNTIME_DIR": "/run"}
	}
	for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"} {
		own[name] = ""
	}
	return func(name string) string {
		if v, ok := own[name]; ok {
			return v
		}
		return getenv(name)
	}
}

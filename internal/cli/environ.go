package cli

import (
	"strings"
)

// daemonEnv is what a daemon started on demand takes of our environment: an
// allow-list, because it will serve other shells too (CONTRACT.md §2).
func (a *app) daemonEnv() []string {
	var env []string
	seen := map[string]bool{}
	for i := len(a.Environ) - 1; i >= 0; i-- { // the last of a name counts
		name, value, ok := strings.Cut(a.Environ[i], "=")
		if !ok || seen[name] || !forDaemon(name) {
			continue
		}
		seen[name] = true
		if isFileVar(name) {
			if value = strings.TrimSpace(value); value != "" {
				value = a.outerFile(name, value)
			}
			if value == "" {
				continue
			}
		}
		if name == "HOME" && strings.TrimSpace(value) == "" {
			continue
		}
		env = append(env, name+"="+value)
	}
	if home := a.getenv("HOME"); home != "" && a.variable("HOME") != home {
		env = setenv(env, "HOME", home)
	}
	return env
}

func forDaemon(name string) bool {
	switch name {
	case "HOME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "LOGNAME", "USERNAME", "LANG", "LANGUAGE",
		"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
		"http_proxy", "https_proxy", "no_proxy", "all_proxy",
		"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_STS_REGIONAL_ENDPOINTS",
		"AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT":
		return true
	case "SystemRoot", "SYSTEMROOT", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "TEMP", "TMP", "PATHEXT", "ComSpec", "COMSPEC", "Path":
		return true // what Windows programs do not run without
	case "KEYFOB_CALL_DEPTH", "KEYFOB_READY_FD", execFilesVar:
		return false // they speak of one command
	}
	if strings.HasPrefix(name, outerPrefix) {
		return false
	}
	for _, prefix := range []string{"KEYFOB_", "LC_", "XDG_", "AWS_ENDPOINT_URL"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// choosesCredentials: variables that could make a program use something else
// than the grant of exec.
func choosesCredentials(name string) bool {
	switch name {
	case "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
		"AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_CREDENTIAL_FILE", "AWS_CREDENTIAL_EXPIRATION",
		"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
		"KEYFOB_PASSPHRASE": // it chooses none, and opens the vault: no program needs it
		return true
	}
	for _, prefix := range []string{"AWS_WEB_IDENTITY_", "AWS_CONTAINER_", "AWS_EC2_METADATA_", "AWS_BEARER_TOKEN_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// setenv returns env with name set to value, in place of any earlier one.
func setenv(env []string, name, value string) []string {
	return append(unsetenv(env, name), name+"="+value)
}

func unsetenv(env []string, name string) []string {
	kept := make([]string, 0, len(env)+1)
	for _, e := range env {
		if n, _, _ := strings.Cut(e, "="); n != name {
			kept = append(kept, e)
		}
	}
	return kept
}

package cli

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"keyfob/internal/control"
)

// profileVar names the variable that chooses the profile, "" if none does.
func (a *app) profileVar() string {
	for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"} {
		if a.getenv(name) != "" {
			return name
		}
	}
	return ""
}

// addCaller fills in what the daemon is told of the caller's environment:
// names and places, and of keys the id alone (CONTRACT.md §2).
func (a *app) addCaller(c *control.Context) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if v := a.getenv(name); v != "" {
			c.RegionEnv, c.RegionVar = v, name
			break
		}
	}
	for _, entry := range a.Environ {
		name, value, _ := strings.Cut(entry, "=")
		if len(name) < 4 || name[:4] != "AWS_" {
			continue
		}
		value = strings.TrimSpace(value)
		if value == "" || !told(name) {
			continue
		}
		if isFileVar(name) {
			if value = a.outerFile(name, value); value == "" {
				continue
			}
		}
		if c.Env == nil {
			c.Env = make(map[string]string)
		}
		c.Env[name] = value
	}
}

func told(name string) bool {
	return isFileVar(name) || name == "AWS_ACCESS_KEY_ID" || strings.HasPrefix(name, "AWS_ENDPOINT_URL")
}

// isFileVar: variables whose relative paths mean something else in the
// daemon's directory, and which are therefore made absolute for it.
func isFileVar(name string) bool {
	return name == "AWS_CONFIG_FILE" || name == "AWS_SHARED_CREDENTIALS_FILE" || name == "AWS_CA_BUNDLE"
}

// exec tells a keyfob in its child where the private files are, and in
// variables that begin with outerPrefix what they stand in place of.
const (
	execFilesVar = "KEYFOB_EXEC_FILES"
	outerPrefix  = "KEYFOB_OUTER_"
)

// outerFile returns the path that a file variable means: absolute, and where
// it is exec's private copy, the one that it stands for ("" for none).
func (a *app) outerFile(name, value string) string {
	if dir := a.rawenv(execFilesVar); dir != "" && filepath.Dir(value) == dir {
		value = a.rawenv(outerPrefix + name)
	}
	return a.absolute(value)
}

func (a *app) absolute(path string) string {
	if path == "" {
		return ""
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home := a.getenv("HOME"); home != "" {
			path = filepath.Join(home, rest)
		}
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// appendCredentialsParams writes a CredentialsParams without the encoder,
// whose first use would cost the fast path a tenth of its time. A test holds
// it to what the encoder writes.
func appendCredentialsParams(dst []byte, c control.Context) []byte {
	start := len(dst)
	dst = append(dst, '{')
	text := func(name, value string) {
		if value == "" {
			return
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, name...)
		dst = append(dst, '"', ':')
		dst = appendString(dst, value)
	}
	truth := func(name string, value bool) {
		if value {
			if len(dst) > start+1 {
				dst = append(dst, ',')
			}
			dst = append(dst, '"')
			dst = append(dst, name...)
			dst = append(dst, `":true`...)
		}
	}
	text("profile", c.Profile)
	truth("named", c.Named)
	text("profile_var", c.ProfileVar)
	text("region", c.Region)
	text("region_env", c.RegionEnv)
	text("region_var", c.RegionVar)
	text("role_arn", c.RoleARN)
	if len(c.Env) > 0 {
		names := make([]string, 0, len(c.Env))
		for name := range c.Env {
			names = append(names, name)
		}
		slices.Sort(names)
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		dst = append(dst, `"env":{`...)
		for _, name := range names {
			if dst[len(dst)-1] != '{' {
				dst = append(dst, ',')
			}
			dst = appendString(dst, name)
			dst = append(dst, ':')
			dst = appendString(dst, c.Env[name])
		}
		dst = append(dst, '}')
	}
	truth("may_ask", c.MayAsk)
	return append(dst, '}')
}

func appendString(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if b := s[i]; b < ' ' || b > '~' || b == '"' || b == '\\' || b == '<' || b == '>' || b == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				quoted = []byte(`""`)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

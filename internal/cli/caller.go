package cli

import (
	"path/filepath"
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
// environment is what calls that choose no profile tell of the caller's.
func (a *app) environment() control.ProfileParams {
	var p control.ProfileParams
	p.Named = true
	a.addCaller(&p.Context)
	return p
}

func (a *app) addCaller(c *control.Context) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if v := a.getenv(name); v != "" {
			c.RegionEnv, c.RegionVar = v, name
			break
		}
	}
	for _, entry := range a.Environ {
		name, _, _ := strings.Cut(entry, "=")
		if !told(name) {
			continue
		}
		value := a.getenv(name)
		if value == "" {
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

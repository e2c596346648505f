package hot

import "syscall"

// caller is what of the arguments and the environment the daemon is told; it
// becomes the control.CredentialsParams of the request.
type caller struct {
	profile, region, roleARN string // by the command line, "" if not named
	named                    bool
	profileVar               string
	regionEnv, regionVar     string
	env                      []pair // by name
}

type pair struct{ name, value string }

// Prepare decides what Ask sends, and to which socket; ok is false where the
// decision is not ours. It is here to be tested.
func Prepare(args, env []string) (request []byte, socket string, ok bool) {
	c, ok := arguments(args)
	if !ok {
		return nil, "", false
	}
	e := environment(env)
	switch e.get("KEYFOB_INTERACTIVE") { // Ask never has a person asked; wrong settings are refused by others
	case "", "auto", "never", "always":
	default:
		return nil, "", false
	}
	if e.get("KEYFOB_CALL_DEPTH") != "" {
		return nil, "", false
	}
	if socket, ok = e.socket(); !ok || len(socket) > 107 { // sun_path less the NUL
		return nil, "", false
	}
	if !c.fill(e) {
		return nil, "", false
	}
	request = append(make([]byte, 0, 1024), `{"keyfob":1}`+"\n"+`{"id":1,"method":"credentials","params":`...)
	request, ok = c.appendTo(request)
	return append(request, "}\n"...), socket, ok
}

func arguments(args []string) (c caller, ok bool) {
	if len(args) == 0 || args[0] != "credential-process" {
		return c, false
	}
	for i := 1; i < len(args); i++ {
		var to *string
		value, joined := "", false
		arg := args[i]
		for _, f := range [...]struct {
			name string
			to   *string
		}{{"--profile", &c.profile}, {"--region", &c.region}, {"--role-arn", &c.roleARN}} {
			if arg == f.name {
				to = f.to
			} else if len(arg) > len(f.name) && arg[:len(f.name)+1] == f.name+"=" {
				to, value, joined = f.to, arg[len(f.name)+1:], true
			}
		}
		if to == nil && arg != "" && arg[0] != '-' {
			to, value, joined = &c.profile, arg, true
		}
		if to == nil || *to != "" {
			return c, false
		}
		if !joined {
			if i++; i == len(args) {
				return c, false
			}
			value = args[i]
		}
		if value == "" {
			return c, false
		}
		*to = value
	}
	c.named = c.profile != ""
	return c, true
}

// fill adds what comes from the environment: the profile's name if none was
// named, and what package cli's addCaller tells. File variables are left to
// cli where they need more than to be taken as they are.
func (c *caller) fill(e environment) bool {
	if !c.named {
		c.profile = "default"
		for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"} {
			if v := e.get(name); v != "" {
				c.profile, c.profileVar = v, name
				break
			}
		}
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if v := e.get(name); v != "" {
			c.regionEnv, c.regionVar = v, name
			break
		}
	}
	for _, entry := range e {
		if len(entry) < 4 || entry[:4] != "AWS_" {
			continue
		}
		i := index(entry, '=')
		if i < 0 {
			continue
		}
		name, value := entry[:i], e.get(entry[:i])
		switch {
		case value == "" || c.has(name):
		case name == "AWS_CONFIG_FILE", name == "AWS_SHARED_CREDENTIALS_FILE", name == "AWS_CA_BUNDLE":
			if !isClean(value) || e.get("KEYFOB_EXEC_FILES") != "" {
				return false
			}
			c.add(name, value)
		case name == "AWS_ACCESS_KEY_ID", hasPrefix(name, "AWS_ENDPOINT_URL"):
			c.add(name, value)
		}
	}
	return true
}

func (c *caller) has(name string) bool {
	for _, p := range c.env {
		if p.name == name {
			return true
		}
	}
	return false
}

// add keeps c.env sorted by name.
func (c *caller) add(name, value string) {
	c.env = append(c.env, pair{name, value})
	for i := len(c.env) - 1; i > 0 && c.env[i].name < c.env[i-1].name; i-- {
		c.env[i], c.env[i-1] = c.env[i-1], c.env[i]
	}
}

// appendTo writes what encoding/json writes of a control.CredentialsParams;
// ok is false where a string would have to be escaped.
func (c *caller) appendTo(b []byte) (_ []byte, ok bool) {
	start := len(b)
	b = append(b, '{')
	ok = true
	key := func(name string) {
		if len(b) > start+1 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, '"', ':')
	}
	text := func(name, value string) {
		if value != "" {
			key(name)
			var plain bool
			b, plain = appendString(b, value)
			ok = ok && plain
		}
	}
	text("profile", c.profile)
	if c.named {
		key("named")
		b = append(b, "true"...)
	}
	text("profile_var", c.profileVar)
	text("region", c.region)
	text("region_env", c.regionEnv)
	text("region_var", c.regionVar)
	text("role_arn", c.roleARN)
	if len(c.env) > 0 {
		key("env")
		b = append(b, '{')
		for i, p := range c.env {
			if i > 0 {
				b = append(b, ',')
			}
			var name, value bool
			b, name = appendString(b, p.name)
			b = append(b, ':')
			b, value = appendString(b, p.value)
			ok = ok && name && value
		}
		b = append(b, '}')
	}
	return append(b, '}'), ok
}

func appendString(b []byte, s string) (_ []byte, plain bool) {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return b, false
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"'), true
}

// environment is the process's environment as it came.
type environment []string

// get returns a variable without blanks around it: blank ones are unset. Of
// several of one name the last counts, as everywhere in keyfob.
func (e environment) get(name string) string {
	for i := len(e) - 1; i >= 0; i-- {
		if s := e[i]; len(s) > len(name) && s[len(name)] == '=' && s[:len(name)] == name {
			return trim(s[len(name)+1:])
		}
	}
	return ""
}

// socket decides which socket is the daemon's as package settings does, if
// no settings file has a say in it. A path that would have to be made
// absolute or cleaned is not ours.
func (e environment) socket() (string, bool) {
	home := e.get("HOME")
	if !isClean(home) {
		return "", false
	}
	dir := func(variable, otherwise string) string {
		if v := e.get(variable); v != "" && v[0] == '/' {
			return v
		}
		return otherwise
	}
	config := e.get("KEYFOB_CONFIG")
	if config != "" {
		return "", false
	}
	if config = dir("XDG_CONFIG_HOME", home+"/.config"); !isClean(config) || !silent(config+"/keyfob/config.toml") {
		return "", false
	}
	if s := e.get("KEYFOB_SOCKET"); s != "" {
		return s, isClean(s)
	}
	const name = "/keyfob.sock"
	if r := dir("XDG_RUNTIME_DIR", ""); r != "" && len(r)+len("/keyfob"+name) <= 107 {
		return r + "/keyfob" + name, isClean(r)
	}
	data := e.get("KEYFOB_DATA_DIR")
	if data == "" {
		data = dir("XDG_DATA_HOME", home+"/.local/share") + "/keyfob"
	}
	return data + name, isClean(data)
}

// silent reports whether a settings file says nothing about what is decided
// here, because it does not exist or has none of the words (nor a way to
// write them otherwise).
func silent(path string) bool {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err == syscall.ENOENT {
		return true
	}
	if err != nil {
		return false
	}
	defer func() { _ = syscall.Close(fd) }()
	b := make([]byte, 16<<10)
	n, err := syscall.Read(fd, b)
	if err != nil || n == len(b) {
		return false
	}
	for _, word := range []string{"socket", "data_dir", "profile", "interactive", `\`, `"""`} {
		if contains(b[:n], word) {
			return false
		}
	}
	return true
}

// isClean reports whether path is absolute and filepath.Clean would leave it
// as it is.
func isClean(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for rest := path[1:]; ; {
		segment, more := rest, false
		if i := index(rest, '/'); i >= 0 {
			segment, rest, more = rest[:i], rest[i+1:], true
		}
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
		if !more {
			return true
		}
	}
}

// The few functions of strings and bytes that are needed here: those
// packages wait for unicode to be initialised.

func trim(s string) string {
	for len(s) > 0 && isSpace(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func hasPrefix[S string | []byte](s S, p string) bool {
	return len(s) >= len(p) && string(s[:len(p)]) == p
}

func hasSuffix(b []byte, p string) bool { return len(b) >= len(p) && string(b[len(b)-len(p):]) == p }

func index[S string | []byte](s S, c byte) int {
	for i := range len(s) {
		if s[i] == c {
			return i
		}
	}
	return -1
}

func contains(b []byte, word string) bool {
	for i := 0; i+len(word) <= len(b); i++ {
		if string(b[i:i+len(word)]) == word {
			return true
		}
	}
	return false
}

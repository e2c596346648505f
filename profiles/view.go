package profiles

import (
	"fmt"
	"strings"
)

// layers is one section as all files have it, by precedence.
type layers struct {
	set  *Set
	secs [3]*section
}

// found is a setting that is set: its value is not empty.
type found struct {
	text   string
	origin Origin
	layer  int // index of the file, -1 for a flag or a variable
}

// get returns the value that wins in the files. An empty value wins and
// counts as not set.
func (l *layers) get(key string) (found, bool) {
	for i, s := range l.secs {
		if p := s.get(key); p != nil {
			if p.value == "" {
				return found{}, false
			}
			return found{p.value, l.set.files[i].origin(s, p), i}, true
		}
	}
	return found{}, false
}

// getSub is get for a sub-property; the block that wins counts whole.
func (l *layers) getSub(key, child string) (found, bool) {
	for i, s := range l.secs {
		if p := s.get(key); p != nil {
			c := p.sub(child)
			if c == nil || c.value == "" {
				return found{}, false
			}
			return found{c.value, l.set.files[i].origin(s, c), i}, true
		}
	}
	return found{}, false
}

func (l *layers) exists() bool { return l.secs != [3]*section{} }

// headerOrigin is where the section stands in the highest layer.
func (l *layers) headerOrigin() Origin {
	for i, s := range l.secs {
		if s != nil {
			return l.set.files[i].headerOrigin(s)
		}
	}
	return Origin{}
}

func (s *Set) ssoSession(name string) *layers {
	l := &layers{set: s}
	for i, f := range s.files {
		l.secs[i] = f.sessions[name]
	}
	return l
}

func (s *Set) services(name string) *layers {
	l := &layers{set: s}
	for i, f := range s.files {
		l.secs[i] = f.services[name]
	}
	return l
}

// view is one profile as all layers have it.
type view struct {
	layers
	name    string
	bare    [3]*section // [default], hidden by [profile default]
	inVault bool
	vault   VaultKey
	role    string // --role-arn
}

func (s *Set) view(name string) *view {
	v := &view{layers: layers{set: s}, name: name}
	for i, f := range s.files {
		v.secs[i] = f.profiles[name]
		if name == "default" {
			v.bare[i] = f.bare
		}
	}
	v.vault, v.inVault = s.vault[name]
	return v
}

// exists reports whether any layer has the profile.
func (v *view) exists() bool { return v.inVault || v.layers.exists() }

// get is layers.get with the flags in front.
func (v *view) get(key string) (found, bool) {
	if key == "role_arn" && v.role != "" {
		return found{v.role, Origin{Kind: FromFlag, Name: "--role-arn"}, -1}, true
	}
	return v.layers.get(key)
}

// text is the value of get, "" when it is not set.
func (v *view) text(key string) string {
	f, _ := v.get(key)
	return f.text
}

// withEnvironment is get with the daemon's variables in front.
func (v *view) withEnvironment(key string) (found, bool) {
	if c := v.set.env.settings[key]; len(c) > 0 {
		return found{c[0].value, c[0].origin, -1}, true
	}
	return v.get(key)
}

// staticKeys is a key pair of one layer, taken whole.
type staticKeys struct {
	layer  OriginKind
	origin Origin // of the access key id
	id     string
	secret string // empty for the vault's
	token  string
}

// credentialKeys are one setting: they are never mixed from two layers.
var credentialKeys = [...]string{"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}

func isCredentialKey(key string) bool {
	for _, k := range credentialKeys {
		if k == key {
			return true
		}
	}
	return false
}

// keysIn reads the pair of one section: nil when it has none (or empty
// values only), an error for half a pair.
func (v *view) keysIn(i int) (*staticKeys, *Error) {
	s, f := v.secs[i], v.set.files[i]
	var p [len(credentialKeys)]*prop
	var have, lack []string
	var first *prop
	for j, key := range credentialKeys {
		p[j] = s.get(key)
		switch {
		case p[j] != nil && p[j].value != "":
			have = append(have, key)
			if first == nil {
				first = p[j]
			}
		case j < 2:
			lack = append(lack, key)
		}
	}
	if first == nil {
		return nil, nil
	}
	if len(lack) > 0 {
		o := f.origin(s, first)
		return nil, &Error{
			Message: fmt.Sprintf("cannot use profile %s: %s has %s and no %s", v.name, place(o), strings.Join(have, " and "), strings.Join(lack, " and no ")),
			File:    o.File, Line: o.Line,
			Help: "the key id, the secret and the session token are taken whole from one file",
		}
	}
	k := &staticKeys{layer: f.kind, origin: f.origin(s, p[0]), id: p[0].value, secret: p[1].value}
	if p[2] != nil {
		k.token = p[2].value
	}
	return k, nil
}

// keyLayer is the highest layer that has any of the three keys: -1 for the
// vault, the file's index, or len(files) for none.
func (v *view) keyLayer() int {
	if v.inVault {
		return -1
	}
	for i, s := range v.secs {
		for _, key := range credentialKeys {
			if s.get(key) != nil {
				return i
			}
		}
	}
	return len(v.secs)
}

// keys returns the profile's own static keys, nil when it has none. Half a
// pair in the layer that wins is an error.
func (v *view) keys() (*staticKeys, *Error) {
	switch i := v.keyLayer(); {
	case i < 0:
		return &staticKeys{layer: FromKeystore, origin: v.keystoreOrigin(), id: v.vault.AccessKeyID}, nil
	case i < len(v.secs):
		return v.keysIn(i)
	}
	return nil, nil
}

func (v *view) keystoreOrigin() Origin { return Origin{Kind: FromKeystore, Name: v.name} }

// place names an origin in a message: FILE:LINE, a variable or a flag.
func place(o Origin) string {
	switch {
	case o.File != "":
		return fmt.Sprintf("%s:%d", o.File, o.Line)
	case o.Kind == FromKeystore:
		return "keyfob's vault"
	case o.Kind == FromEnvironment:
		return "the variable " + o.Name
	}
	return o.Name
}

// said names a setting and its place in a message.
func said(key string, f found) string { return key + " (" + place(f.origin) + ")" }

// conflict is an error that names two settings and both places.
func conflict(message string, a, b Origin) *Error {
	e := &Error{Message: message, File: a.File, Line: a.Line}
	if e.File == "" {
		e.File, e.Line = b.File, b.Line
	} else if b.File != "" {
		e.Also = &Place{File: b.File, Line: b.Line}
	}
	return e
}

// fault is an error about one setting.
func fault(o Origin, format string, args ...any) *Error {
	return &Error{Message: fmt.Sprintf(format, args...), File: o.File, Line: o.Line}
}

func (e *Error) withHelp(help string) *Error {
	e.Help = help
	return e
}

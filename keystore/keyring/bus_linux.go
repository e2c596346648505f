package keyring

import (
	"encoding/hex"
	"errors"
	"os"
	"strings"

	ring "github.com/99designs/keyring"
	"github.com/godbus/dbus"
)

const (
	secretsName     = "org.freedesktop.secrets"
	secretsPath     = "/org/freedesktop/secrets"
	collectionsPath = secretsPath + "/collection/"
	promptCompleted = "org.freedesktop.Secret.Prompt.Completed"
)

// sessionBus is the connection that the keyring library uses too.
func sessionBus() (*dbus.Conn, error) { return dbus.SessionBus() }

// whyAbsent says which part of a keyring is missing.
func whyAbsent(backend string) string {
	switch ring.BackendType(backend) {
	case ring.SecretServiceBackend:
		if _, err := sessionBus(); err != nil {
			return "there is no D-Bus session bus: " + oneLine(err.Error())
		}
		return "no Secret Service answers on the session bus"
	case ring.KWalletBackend:
		if _, err := sessionBus(); err != nil {
			return "there is no D-Bus session bus: " + oneLine(err.Error())
		}
		return "no KWallet answers on the session bus"
	case ring.PassBackend:
		return "the program pass is not there"
	case ring.KeyCtlBackend:
		return "the kernel's keyring can't be used here"
	}
	return ""
}

// busError is the name and text of an error that came over the bus.
func busError(err error) (name, text string) {
	text = oneLine(err.Error())
	var v dbus.Error
	var p *dbus.Error
	switch {
	case errors.As(err, &v):
		return v.Name, text
	case errors.As(err, &p):
		return p.Name, text
	}
	return "", text
}

// defaultCollection is the collection where the person's keyring keeps what
// has no place of its own: the one with the alias "default", else "login".
// One of keyfob's own would need a password of its own.
func defaultCollection() string {
	const fallback = "login"
	conn, err := sessionBus()
	if err != nil {
		return fallback
	}
	var path dbus.ObjectPath
	err = conn.Object(secretsName, secretsPath).Call("org.freedesktop.Secret.Service.ReadAlias", 0, "default").Store(&path)
	name, ok := strings.CutPrefix(string(path), collectionsPath)
	if err != nil || !ok || name == "" || strings.Contains(name, "/") {
		return fallback
	}
	return pathName(name)
}

// pathName undoes the escaping of a D-Bus path element: _ and two
// hexadecimal digits stand for a byte. The library compares names so.
func pathName(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '_' && i+2 < len(s) {
			if raw, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.Write(raw)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// promptWatch listens for the end of prompts, which the library does not
// tell from their success.
type promptWatch struct{ signals chan *dbus.Signal }

func watchPrompts(backend string) promptWatch {
	if ring.BackendType(backend) != ring.SecretServiceBackend {
		return promptWatch{}
	}
	conn, err := sessionBus()
	if err != nil {
		return promptWatch{}
	}
	w := promptWatch{signals: make(chan *dbus.Signal, 64)}
	conn.Signal(w.signals)
	return w
}

// dismissed reports whether a person closed a prompt. Without a display
// nobody saw one: the keyring closes it at once by itself.
func (w promptWatch) dismissed() bool {
	closed := false
	for {
		select {
		case s := <-w.signals: // never, for the zero value
			if s != nil && s.Name == promptCompleted && len(s.Body) > 0 {
				if d, ok := s.Body[0].(bool); ok && d {
					closed = true
				}
			}
			continue
		default:
		}
		return closed && (os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "")
	}
}

package rolesanywhere

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"keyfob/internal/cred"
)

// tokenURI is a PKCS #11 URI (RFC 7512): a token, and an object in it.
type tokenURI struct {
	text       string // without what stands after the ?
	token      string // its label
	serial     string
	slot       int // -1 for none
	object     string
	id         []byte
	modulePath string
	pin        cred.Secret // pin-value
	pinSource  string      // an absolute path, or vault:NAME
}

// parseURI reads a URI. Its errors name attributes, never values: one may be
// a PIN.
func parseURI(s string) (*tokenURI, error) {
	u := &tokenURI{slot: -1}
	var query string
	u.text, query, _ = strings.Cut(s, "?")
	path, ok := strings.CutPrefix(u.text, pkcs11Prefix)
	if !ok {
		return nil, errors.New("it has another scheme than pkcs11")
	}
	seen := map[string]bool{}
	attributes := func(text, separator string, use func(name, value string) error) error {
		if text == "" {
			return nil
		}
		for _, a := range strings.Split(text, separator) {
			name, value, ok := strings.Cut(a, "=")
			if !ok {
				return errors.New("an attribute has no value")
			}
			value, err := url.PathUnescape(value)
			switch {
			case err != nil:
				return fmt.Errorf("the value of %s is not percent-encoded well", printable(name))
			case seen[name]:
				return fmt.Errorf("%s stands there twice", printable(name))
			}
			seen[name] = true
			if err := use(name, value); err != nil {
				return err
			}
		}
		return nil
	}
	err := attributes(path, ";", func(name, value string) error {
		switch name {
		case "token":
			u.token = value
		case "serial":
			u.serial = value
		case "slot-id":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return errors.New("slot-id is no number")
			}
			u.slot = int(n)
		case "object":
			u.object = value
		case "id":
			u.id = []byte(value)
		case "type":
			if value != "cert" && value != "private" {
				return errors.New("type is neither cert nor private")
			}
		case "manufacturer", "model", "library-manufacturer", "library-description", "library-version", "slot-description", "slot-manufacturer":
			// They tell tokens apart where serial, token and slot-id do not:
			// one of those is asked for.
		default:
			return fmt.Errorf("%s is an attribute that keyfob does not know", printable(name))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = attributes(query, "&", func(name, value string) error {
		switch name {
		case "module-path":
			if !strings.HasPrefix(value, "/") && !strings.Contains(value, `:\`) {
				return errors.New("module-path is no absolute path")
			}
			u.modulePath = value
		case "pin-value":
			u.pin = cred.NewSecret(value)
		case "pin-source":
			u.pinSource = strings.TrimPrefix(value, "file:")
			if !strings.HasPrefix(u.pinSource, "/") && !strings.HasPrefix(u.pinSource, vaultPrefix) && !strings.Contains(u.pinSource, `:\`) {
				return errors.New("pin-source is neither an absolute path nor vault:NAME")
			}
		case "module-name":
			return errors.New("module-name is not understood: give module-path")
		default:
			return fmt.Errorf("%s is an attribute that keyfob does not know", printable(name))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if u.token == "" && u.serial == "" && u.slot < 0 {
		return nil, errors.New("it names no token: give token, serial or slot-id")
	}
	return u, nil
}

// device is the token in messages.
func (u *tokenURI) device() string {
	switch {
	case u.serial != "":
		return "the token with serial number " + printable(u.serial)
	case u.token != "":
		return "the token " + printable(u.token)
	}
	return "the token in slot " + strconv.Itoa(u.slot)
}

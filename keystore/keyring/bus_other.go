//go:build !linux

package keyring

import ring "github.com/99designs/keyring"

// whyAbsent says which part of a keyring is missing.
func whyAbsent(backend string) string {
	switch ring.BackendType(backend) {
	case ring.PassBackend:
		return "the program pass is not there"
	case ring.KeychainBackend:
		return "this build can't use the keychain: it was made without cgo"
	}
	return ""
}

// There is no session bus on this platform.

func busError(err error) (name, text string) { return "", oneLine(err.Error()) }

func defaultCollection() string { return "" }

type promptWatch struct{}

func watchPrompts(string) promptWatch { return promptWatch{} }

func (promptWatch) dismissed() bool { return false }

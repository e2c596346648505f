//go:build !pkcs11

package rolesanywhere

import (
	"errors"

	"keyfob/internal/cred"
)

// tokensBuilt: PKCS #11 needs cgo, which keyfob's programs are built without.
const (
	tokensBuilt   = false
	defaultModule = ""
)

// openedToken stands for what a build with the tag pkcs11 has.
type openedToken struct{ token }

func (openedToken) close() {}

func openToken(string, *tokenURI, cred.Secret) (openedToken, error) {
	return openedToken{}, errors.New("this keyfobd was built without PKCS #11")
}

func isWrongPIN(error) bool { return false }

func tokenFailure(_ location, _ *tokenURI, _ string, err error) error { return err }

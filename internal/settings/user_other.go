//go:build !windows

package settings

import "errors"

// userSID is for pipes. Package os/user is not used here: with cgo it would
// link the client to libc, which costs half of its start.
func userSID() (string, error) { return "", errors.New("there are no pipes here") }

package keyring

import (
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"syscall"

	ring "github.com/99designs/keyring"

	"keyfob/keystore/internal/wire"
)

// classify says what a keyring's error means to a person: the code, and a
// text for the message. dismissed tells that a prompt was closed meanwhile.
func classify(err error, backend string, dismissed bool) (code, message string) {
	message = oneLine(err.Error())
	if errors.Is(err, ring.ErrKeyNotFound) {
		return wire.CodeNotFound, ""
	}
	if errors.Is(err, ring.ErrNoAvailImpl) {
		return wire.CodeAbsent, whyAbsent(backend)
	}
	switch ring.BackendType(backend) {
	case ring.SecretServiceBackend, ring.KWalletBackend:
		return classifyBus(err, dismissed)
	case ring.KeyCtlBackend:
		switch {
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EPERM):
			return wire.CodeAbsent, "the kernel's keyring is not allowed here"
		case errors.Is(err, syscall.EACCES):
			return wire.CodeLocked, "the kernel's keyring may not be read"
		case errors.Is(err, syscall.EDQUOT):
			return wire.CodeFailed, "the kernel's keyring of this user is full (see /proc/key-users)"
		}
	case ring.PassBackend:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return wire.CodeLocked, "pass could not use its GPG key"
		}
	case ring.WinCredBackend:
		// ERROR_NO_SUCH_LOGON_SESSION, WinError.h.
		var no syscall.Errno
		if errors.As(err, &no) && no == 1312 {
			return wire.CodeAbsent, "this logon session has no Credential Manager"
		}
	case ring.KeychainBackend:
		// The OSStatus values of Security/SecBase.h. The library's type
		// for them exists in cgo builds for macOS alone.
		switch status(err) {
		case -25308: // errSecInteractionNotAllowed
			return wire.CodeLocked, "the keychain is locked and may not ask"
		case -128, -25293: // errSecUserCanceled, errSecAuthFailed
			return wire.CodeDismissed, ""
		case -25291, -25294, -25307: // errSecNotAvailable, errSecNoSuchKeychain, errSecNoDefaultKeychain
			return wire.CodeAbsent, "there is no keychain"
		}
	}
	return wire.CodeFailed, message
}

// classifyBus reads the errors of a Secret Service, which come as D-Bus
// errors, by name or by text.
func classifyBus(err error, dismissed bool) (code, message string) {
	name, text := busError(err)
	switch {
	case dismissed:
		return wire.CodeDismissed, ""
	case name == "org.freedesktop.Secret.Error.IsLocked", strings.Contains(text, "locked object"):
		return wire.CodeLocked, ""
	case name == "org.freedesktop.Secret.Error.NoSuchObject", strings.Contains(text, "Object does not exist at path"):
		// What is left of a collection that nobody could be asked to make
		// or to unlock.
		return wire.CodeLocked, "it has no unlocked collection"
	case strings.HasPrefix(name, "org.freedesktop.DBus.Error.ServiceUnknown"), name == "org.freedesktop.DBus.Error.NoReply",
		strings.HasPrefix(name, "org.freedesktop.DBus.Error.Spawn"), name == "org.freedesktop.DBus.Error.NameHasNoOwner",
		name == "org.freedesktop.DBus.Error.Disconnected", name == "org.freedesktop.DBus.Error.TimedOut":
		return wire.CodeAbsent, text
	case strings.Contains(text, "dbus: connection closed"), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return wire.CodeAbsent, "the session bus went away"
	}
	return wire.CodeFailed, text
}

// status is the number of an error type that is a number, 0 for others.
func status(err error) int64 {
	for ; err != nil; err = errors.Unwrap(err) {
		if v := reflect.ValueOf(err); v.CanInt() {
			return v.Int()
		}
	}
	return 0
}

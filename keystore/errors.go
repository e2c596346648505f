package keystore

import (
	"errors"
	"fmt"

	"keyfob/internal/cred"
)

// What Open, Unlock and the Store methods answer beside cred.ErrNotFound and
// cred.ErrLocked. Test with errors.Is; cred.HintOf tells what to do.
var (
	// ErrNoKeyring: no keyring of the vault's backend can be reached (no
	// session bus, no Secret Service on it, no pass program, or a build
	// without that backend).
	ErrNoKeyring = errors.New("no keyring answers")
	// ErrKeyringLocked: the keyring is there, locked, and nobody could be
	// asked to unlock it.
	ErrKeyringLocked = errors.New("the keyring is locked")
	// ErrDismissed: the person closed the keyring's prompt.
	ErrDismissed = errors.New("the keyring's prompt was dismissed")
	// ErrTimeout: the helper was ended because its time was up.
	ErrTimeout = errors.New("the keyring did not answer in time")
	// ErrKeyMissing: the keyring answers and does not hold the master key
	// of a vault that has one. The vault is left as it is: a keyring that
	// was restarted may say so too.
	ErrKeyMissing = errors.New("the keyring does not hold the vault's master key")
	// ErrWrongKey: the keyring holds a key that is not this vault's.
	ErrWrongKey = errors.New("the key in the keyring is not this vault's")
	// ErrPassphraseNeeded: the backend is "passphrase" and none was given.
	ErrPassphraseNeeded = errors.New("a passphrase is needed")
	// ErrWrongPassphrase: the passphrase does not open the vault.
	ErrWrongPassphrase = errors.New("wrong passphrase")
	// ErrWrongRecoveryKey: the recovery key is mistyped, or not (or no
	// longer) this vault's.
	ErrWrongRecoveryKey = errors.New("wrong recovery key")
	// ErrNewerVersion: a header, record or keyring item was written in a
	// format that this version does not know. Nothing was changed.
	ErrNewerVersion = errors.New("written by a newer version of keyfob")
	// ErrCorrupt: the header or a record is damaged. For a record,
	// cred.ErrNotFound holds as well: it was set aside.
	ErrCorrupt = errors.New("damaged")
	// ErrPermissions: others may read or change the vault's directory.
	ErrPermissions = errors.New("permissions are too open")
	// ErrBackend: the backend is unknown, does not exist on this platform,
	// or is not the one that the vault was made with.
	ErrBackend = errors.New("this keystore cannot be used")
	// ErrHelper: keyfob-keyring is missing, or ended without an answer.
	ErrHelper = errors.New("keyfob-keyring failed")
	// ErrReplaced: the vault's directory now holds another vault.
	ErrReplaced = errors.New("the vault was replaced while it was open")
	// ErrClosed: the vault was closed.
	ErrClosed = errors.New("the vault is closed")
)

// NeedsPerson reports whether err means that a person must act before the
// vault opens (exit code 3 at the edge).
func NeedsPerson(err error) bool {
	for _, e := range []error{
		cred.ErrLocked, ErrNoKeyring, ErrKeyringLocked, ErrDismissed, ErrTimeout, ErrKeyMissing,
		ErrWrongKey, ErrPassphraseNeeded, ErrWrongPassphrase, ErrWrongRecoveryKey,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// CorruptError is a record that could not be opened and was set aside. It is
// ErrCorrupt and cred.ErrNotFound: there is no such record any more.
type CorruptError struct {
	Name string // the record's name
	File string // where it is now, a full path
	Why  string // what was wrong with it
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("cannot open record %s: %s; it was set aside as %s", printable(e.Name), e.Why, e.File)
}

// Is makes a CorruptError both ErrCorrupt and cred.ErrNotFound.
func (e *CorruptError) Is(target error) bool {
	return target == ErrCorrupt || target == cred.ErrNotFound
}

// printable is a record's name as it may stand in a message: plain names as
// they are, others quoted.
func printable(name string) string {
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '"' {
			return fmt.Sprintf("%q", name)
		}
	}
	return name
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/keystore"
)

// wireError is the one place where an error becomes words and a code for
// the command. what completes "cannot …" where the error's own text does
// not begin so.
func (d *daemon) wireError(err error, what string) *control.Error {
	var ready *control.Error
	if errors.As(err, &ready) {
		return ready
	}
	e := &control.Error{Code: control.CodeFailed, Message: sentence(err, what), Hint: hintOf(err)}
	var (
		person *cred.InteractionError
		up     *cred.UpstreamError // which says itself what took too long
	)
	switch {
	case errors.Is(err, cred.ErrDenied):
		// One text for a known and an unknown profile: whoever is refused
		// learns nothing.
		e.Code, e.Message, e.Hint = control.CodeDenied, "cannot "+what+": denied", "the log of keyfobd says why"
	case errors.As(err, &person):
		e.Code = control.CodeInteraction
	case errors.Is(err, cred.ErrLocked), keystore.NeedsPerson(err):
		e.Code = control.CodeInteraction
		if st := d.vault.Status(); errors.Is(err, cred.ErrLocked) && st.Err != nil {
			e.Message = "cannot " + what + ": the vault is locked: " + reason(st.Err)
			err = st.Err
		}
		e.Hint = d.vaultHint(err)
		if e.Hint == "" {
			e.Hint = "keyfob unlock"
		}
	case errors.Is(err, cred.ErrUnknownProfile):
		e.Code = control.CodeUnknownProfile
	case errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &up):
		e.Code, e.Message = control.CodeUnavailable, "cannot "+what+": there was no answer in time"
		if e.Hint == "" {
			e.Hint = "keyfob status shows the last error"
		}
	case errors.Is(err, cred.ErrUnavailable):
		e.Code = control.CodeUnavailable
	}
	return e
}

// sentence is err's text as one line that begins with "cannot".
func sentence(err error, what string) string {
	text := oneText(err.Error())
	if !strings.HasPrefix(text, "cannot ") {
		text = fmt.Sprintf("cannot %s: %s", what, text)
	}
	return text
}

// reason is err's text for the end of a sentence that says what else can't be
// done.
func reason(err error) string { return control.Reason(oneText(err.Error())) }

// vaultHint is what opens the vault after err. Where no keyring answers and no
// key was made yet, a passphrase can take its place: how, depends on who
// starts this daemon.
func (d *daemon) vaultHint(err error) string {
	switch {
	case !errors.Is(err, keystore.ErrNoKeyring) || !d.vault.Status().New:
		return hintOf(err)
	case d.opt.OnDemand:
		return "start the keyring; or have a passphrase in its place: keyfob stop; keyfob unlock --keystore passphrase"
	}
	return "start the keyring; or have a passphrase in its place: keystore.backend = \"passphrase\" in config.toml, then keyfob service restart; keyfob unlock"
}

func trimCannot(text string) string { return strings.TrimPrefix(text, "cannot ") }

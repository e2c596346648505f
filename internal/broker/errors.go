package broker

import (
	"context"
	"errors"
	"fmt"

	"keyfob/internal/cred"
)

// fault gives an error the meaning of a sentinel without changing its words:
// what the edge decides by (a code, a status) and what people read are kept
// apart.
type fault struct {
	sentinel error
	err      error
	hint     string
}

func (f *fault) Error() string   { return f.err.Error() }
func (f *fault) Unwrap() []error { return []error{f.sentinel, f.err} }

// Hint is the fault's own, else that of the error inside.
func (f *fault) Hint() string {
	if f.hint != "" {
		return f.hint
	}
	return cred.HintOf(f.err)
}

// belowError marks a failure of the link below: no attempt of this link was
// made, so it costs this link no back-off.
type belowError struct{ err error }

func (e *belowError) Error() string { return e.err.Error() }
func (e *belowError) Unwrap() error { return e.err }

// errEnded means that a link was given up between being looked up and being
// asked. Callers look it up again; it never leaves the package.
var errEnded = errors.New("the link was given up")

// errForgotten is what waits for an attempt learn when its session was
// logged out, or the vault locked, before the attempt ended.
var errForgotten = fmt.Errorf("cannot hand out a session that was just given up: %w", cred.ErrUnavailable)

func errShutdown(profile string) error {
	return fmt.Errorf("cannot get credentials for %s: the daemon is ending: %w", profile, cred.ErrUnavailable)
}

// lateError is what a caller learns whose own deadline came before the
// attempt's end.
func lateError(ctx context.Context, profile string) error {
	return fmt.Errorf("cannot get credentials for %s in time: %w (%w)", profile, cred.ErrUnavailable, context.Cause(ctx))
}

// interactionOf returns the *cred.InteractionError in err's tree, or nil.
func interactionOf(err error) *cred.InteractionError {
	var ie *cred.InteractionError
	if errors.As(err, &ie) {
		return ie
	}
	return nil
}

// baseRefused tells how AWS refused the credentials that signed a request.
// ended is true when it said that they are over; otherwise it did not know
// them, which it also says of good ones in a region that it does not know
// them in.
func baseRefused(err error) (refused, ended bool) {
	var ue *cred.UpstreamError
	if !errors.As(err, &ue) {
		return false, false
	}
	switch ue.Code {
	case "ExpiredToken", "ExpiredTokenException":
		return true, true
	case "InvalidClientTokenId":
		return true, false
	}
	return false, false
}

// lockedError is the answer while the vault is locked on purpose.
func lockedError() error {
	return cred.WithHint(fmt.Errorf("cannot hand out credentials: %w", cred.ErrLocked), "keyfob unlock")
}

// noAsker stands in where no Asker is configured: nobody can be asked.
type noAsker struct{}

func (noAsker) Ask(_ context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile}
}

package cred

import (
	"errors"
	"fmt"
	"time"
)

// Sentinels. What they mean to a caller (an exit code, an HTTP status) is
// decided at the edge, from these alone.
var (
	// ErrUnknownProfile: no layer has a profile of that name.
	ErrUnknownProfile = errors.New("there is no such profile")
	// ErrDenied: keyfob's own rules refuse this caller.
	ErrDenied = errors.New("denied")
	// ErrUnavailable: there are no credentials now and a later try may
	// succeed (a network failure, a back-off, a time-out).
	ErrUnavailable = errors.New("credentials are not available now")
	// ErrConfig: the profile can't be resolved as it is written.
	ErrConfig = errors.New("the profile is not usable")
	// ErrNotFound: the Store has no such record.
	ErrNotFound = errors.New("no such record")
	// ErrLocked: the vault's master key is not in memory.
	ErrLocked = errors.New("the vault is locked")
)

// UpstreamError is what an upstream (STS, IAM, …) answered, or that it did
// not answer.
type UpstreamError struct {
	Op      string // "AssumeRole"
	Target  string // the role, device or user it was about, "" if none
	Code    string // AWS's error code, "" when no answer came
	Status  int    // HTTP status, 0 when no answer came
	Message string // one line in words that help, without secrets
	Help    string // what to do, "" for nothing better
	// Refused: AWS understood the request and said no; the same request
	// will be refused again until somebody changes something.
	Refused bool
	// Skew is AWS's clock minus ours when the answer's Date header told it
	// and it exceeds a minute; 0 otherwise.
	Skew time.Duration
	Err  error // the cause; its text may be long and is only logged
}

func (e *UpstreamError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	if e.Code != "" {
		return fmt.Sprintf("cannot %s: AWS answered %s", e.Op, e.Code)
	}
	return fmt.Sprintf("cannot %s: AWS gave no answer", e.Op)
}

// Hint says what a person can do.
func (e *UpstreamError) Hint() string { return e.Help }

// Unwrap returns the cause.
func (e *UpstreamError) Unwrap() error { return e.Err }

// Is makes an UpstreamError that is no refusal an ErrUnavailable.
func (e *UpstreamError) Is(target error) bool { return target == ErrUnavailable && !e.Refused }

// InteractionError says that a person must act.
type InteractionError struct {
	Key     LinkKey
	Kind    string // AskMFA, …, or "unlock"
	Profile string
	Message string // "cannot …"
	Help    string // the command to run
}

func (e *InteractionError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("cannot get credentials for %s: a person must act", e.Profile)
}

// Hint names the command that mends it.
func (e *InteractionError) Hint() string {
	if e.Help != "" {
		return e.Help
	}
	return "keyfob login " + e.Profile
}

// Hinted is an error that knows what a person can do about it.
type Hinted interface {
	error
	Hint() string
}

// WithHint adds a hint to err. HintOf finds it again.
func WithHint(err error, hint string) error { return &hinted{err: err, hint: hint} }

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }
func (h *hinted) Hint() string  { return h.hint }

// RetryAfter is how long an upstream's answer says to wait before the next
// call, 0 where err's tree holds no such answer.
func RetryAfter(err error) time.Duration {
	var says interface{ RetryAfter() time.Duration }
	if errors.As(err, &says) {
		return says.RetryAfter()
	}
	return 0
}

// HintOf returns the hint of the outermost error in err's tree that has one.
func HintOf(err error) string {
	var h Hinted
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

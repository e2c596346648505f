package cred

import (
	"time"

	"keyfob/internal/peer"
)

// The kinds of Event.
const (
	EventHandOut = "handout" // credentials were given
	EventRefusal = "refusal" // they, or a token or grant for them, were refused
)

// Event is one entry of the audit log: a hand-out or a refusal. It holds no
// secret.
type Event struct {
	Time    time.Time // zero is now
	Kind    string    // EventHandOut or EventRefusal
	Profile string    // as asked for, "" where the request did not get that far
	Via     Endpoint
	Grant   string // id of the grant that opened the endpoint, "" for none
	// Caller is as the connection has it. The Recorder finds out the
	// program behind it.
	Caller      peer.Caller
	AccessKeyID string // of what was handed out
	AccountID   string
	Expires     time.Time // as advertised
	Reason      string    // of a refusal: for the owner, never for the caller
}

// Recorder writes the audit log. Record returns at once, never fails and
// never blocks on a disk: an answer does not wait for its entry. A nil
// Recorder is not called.
type Recorder interface {
	Record(e Event)
}

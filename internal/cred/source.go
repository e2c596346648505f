package cred

import (
	"context"
	"time"
)

// Source makes the credentials of one link. One package under
// internal/source implements each kind; daemon injects them into the broker.
type Source interface {
	// Fetch makes one attempt and returns new credentials. ctx carries the
	// deadline; Fetch does not retry. Errors: *UpstreamError for whatever
	// an upstream answered or failed to answer, *InteractionError when a
	// person is needed and nobody can be asked, an error of the Store.
	Fetch(ctx context.Context, in Input) (Credentials, error)

	// Interactive reports whether Fetch may need a person. Such a link is
	// used to its end and announced early, never refreshed ahead.
	Interactive() bool
}

// SignInSource is a Source whose credentials come with a person's sign-in that
// outlives them and is shared: an Identity Center session, an OIDC login. It
// is refreshed ahead like any other, and needs a person only when the sign-in
// has ended; Interactive is false. Its Fetch gets the time limit of a
// sign-in, and bounds each of its own calls by FetchTimeout.
type SignInSource interface {
	Source
	// AskKey is the key under which it asks: one for all links that share
	// the sign-in. It is not the link's own.
	AskKey() LinkKey
	// SignInEnds is when a person must sign in again, as far as it is
	// known; zero when it is not, or nobody has signed in. It reads the
	// Store at most.
	SignInEnds(ctx context.Context) time.Time
}

// Input is what a Source works from.
type Input struct {
	Key     LinkKey     // the link's own key
	Profile string      // the profile that was asked for, for messages
	Base    Credentials // of the link below; the zero value for a base link
	Ask     Asker       // never nil
	Signin  *Signin     // how the person wants to sign in, nil for the usual way
}

// Store keeps sealed records by name. Names are slash-separated ("key/dev",
// "session/<hex>"). Implementations are safe for concurrent use.
type Store interface {
	// Get returns the record. Errors: ErrNotFound when there is none,
	// ErrLocked while the master key is not in memory; others say more
	// (package keystore).
	Get(ctx context.Context, name string) (Secret, error)
	// Put writes the record, atomically and durably. ErrLocked as for Get.
	Put(ctx context.Context, name string, value Secret) error
	// Delete removes the record; ErrNotFound when there is none. It works
	// while locked.
	Delete(ctx context.Context, name string) error
	// List returns the names that start with prefix, sorted. It works while
	// locked.
	List(ctx context.Context, prefix string) ([]string, error)
}

// Asker reaches a person.
type Asker interface {
	// Ask puts the question of link key to whoever can answer and waits.
	// *InteractionError when nobody can be asked, the person refused, or a
	// refusal is cooling down; the context's error when it ends first.
	// Any number of calls with one key are one interaction.
	Ask(ctx context.Context, key LinkKey, q Question) (Secret, error)
}

// The kinds of Question.
// What is asked for, and what the answer is. Values of AnswerXxx are what a
// person's client says where it has no text to give.
const (
	AskMFA = "mfa" // a code of the device Serial
	// AskConfirm: may this program have a protected profile? Choices hold
	// the answers.
	AskConfirm = "confirm"
	// AskBrowser: open URL in the person's browser. The answer comes by
	// another way (a redirect to the daemon's own listener), after which
	// the asker ends its context; Ask returns before that only with an
	// error or with AnswerNoBrowser.
	AskBrowser = "browser"
	// AskDevice: show URL and UserCode. The answer comes by another way, as
	// for AskBrowser.
	AskDevice = "device"
	// AskCode: show URL; the person types what the page there shows.
	AskCode = "code"
	// AskSAML: the assertion that the identity provider at URL posts, from a
	// browser that the person's client drives.
	AskSAML = "saml"
	// AskChoice: one of Choices.
	AskChoice = "choice"

	// AnswerNoBrowser answers AskBrowser where no browser can be opened.
	AnswerNoBrowser = "no-browser"
)

// The answers to AskConfirm.
const (
	ConfirmOnce   = "once"
	ConfirmHour   = "hour"
	ConfirmAlways = "always"
	ConfirmNo     = "no"
)

// Signin is how a person wants to sign in: the options of `keyfob login`.
type Signin struct {
	Device    bool   // --device: a code for another device's browser
	Remote    bool   // --remote: the cross-device form of a login session
	Assertion Secret // --assertion-file: a SAML assertion, base64
}

// Question is what a person is asked.
type Question struct {
	Kind    string // AskMFA, …
	Profile string // the profile on whose behalf
	Serial  string // of the MFA device
	Text    string // one line, for a prompt
	// Process is the profile's mfa_process, "" for none: a command that
	// prints the code, which is asked before a person is.
	Process string
	// URL is what a browser opens, UserCode what the page asks for. Both are
	// shown to the person and by status.
	URL      string
	UserCode string
	Choices  []string // of AskConfirm and AskChoice: the answers that count
	// Program is who asks, for AskConfirm: its path.
	Program string
	// SAMLEndpoint is the address that the identity provider's form posts
	// to, for AskSAML: the assertion is taken on its way there.
	SAMLEndpoint string
}

// Times of the broker that more than one package must agree on.
const (
	// FetchTimeout bounds one attempt of one link that needs no person.
	FetchTimeout = 30 * time.Second
)

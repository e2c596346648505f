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

// Input is what a Source works from.
type Input struct {
	Key     LinkKey     // the link's own key
	Profile string      // the profile that was asked for, for messages
	Base    Credentials // of the link below; the zero value for a base link
	Ask     Asker       // never nil
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
const (
	AskMFA = "mfa" // a code of the device Serial
)

// Question is what a person is asked.
type Question struct {
	Kind    string // AskMFA, …
	Profile string // the profile on whose behalf
	Serial  string // of the MFA device
	Text    string // one line, for a prompt
}

// Times of the broker that more than one package must agree on.
const (
	// FetchTimeout bounds one attempt of one link that needs no person.
	FetchTimeout = 30 * time.Second
)

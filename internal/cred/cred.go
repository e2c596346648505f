package cred

import (
	"crypto/sha256"
	"encoding/hex"
	"sort"
	"strings"
	"time"

	"keyfob/internal/peer"
)

// Credentials are what signs a request to AWS.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey Secret
	SessionToken    Secret // empty for long-lived keys, which are never handed out
	// Expires is when they end, zero for long-lived keys. A Source gives it
	// by AWS's clock, a Snapshot by the clock of this machine: clients judge
	// by theirs, which is ours.
	Expires   time.Time
	AccountID string // twelve digits, or "" where the source does not tell
	RoleARN   string // the role that was assumed, "" for none
}

// Temporary reports whether these may be handed out: they have a session
// token and an end.
func (c Credentials) Temporary() bool {
	return !c.SessionToken.IsZero() && !c.Expires.IsZero()
}

// Snapshot is one published result of a refresh. It is immutable: readers
// share it without a lock, a refresh publishes a new one.
type Snapshot struct {
	Credentials
	Fetched time.Time // when the upstream's answer came, by our wall clock
}

// AdvertisedExpiry is the Expiration told to clients (CONTRACT.md §8): the
// real one less 60 s while that is ahead of now and the lifetime is 120 s or
// more, else the real one. It is the same at every exit.
func (s *Snapshot) AdvertisedExpiry(now time.Time) time.Time {
	early := s.Expires.Add(-60 * time.Second)
	if s.Expires.Sub(s.Fetched) >= 120*time.Second && early.After(now) {
		return early
	}
	return s.Expires
}

// Endpoint says by which exit a request came.
type Endpoint struct {
	Kind   string // ViaIMDS, ViaContainer, ViaProcess, ViaExec, ViaEnv, ViaLogin
	Listen string // the listener's address, "" on the control socket
}

// The kinds of Endpoint.
const (
	ViaIMDS      = "imds"
	ViaContainer = "container"
	ViaProcess   = "credential-process"
	ViaExec      = "exec"
	ViaEnv       = "env"
	ViaLogin     = "login"
	ViaConsole   = "console"
	ViaWhoami    = "whoami"
)

// Request asks the broker for credentials.
type Request struct {
	Caller  peer.Caller // who asks; the zero value gets nothing
	Profile string      // the profile's name, never empty
	// Implicit says that nobody named the profile by a flag, so that the
	// daemon's own AWS_ACCESS_KEY_ID or AWS_ROLE_ARN come first
	// (CONTRACT.md §4).
	Implicit bool
	RoleARN  string // by --role-arn, in place of the profile's own; "" for none
	Region   string // overrides the profile's, "" for none
	Policy   string // session policy of the endpoint, the grant or exec, by SessionPolicy.Encode; "" for none
	Grant    string // id of the grant that opened the endpoint and that the caller may use, "" for none
	MayAsk   bool   // the caller can wait for a person
	// Signin is how the person wants to sign in, nil for the usual way.
	Signin *Signin
	Via    Endpoint
}

// LinkKey names one link of a chain by what decides its credentials: its
// canonical parameters and those of the links below it. The same key names
// the vault record, the flight, the cause of an interaction, and decides
// what a reload keeps.
type LinkKey [sha256.Size]byte

// KeyOf computes a LinkKey from a link's kind, its parameters (the order of
// which does not matter) and the key of the link below, the zero value for
// a base link.
func KeyOf(kind string, params map[string]string, below LinkKey) LinkKey {
	names := make([]string, 0, len(params))
	for n := range params {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteString("keyfob link v1")
	field := func(s string) { // length-prefixed, so that no two lists of fields read alike
		n := len(s)
		b.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		b.WriteString(s)
	}
	field(kind)
	for _, n := range names {
		field(n)
		field(params[n])
	}
	b.Write(below[:])
	return sha256.Sum256([]byte(b.String()))
}

// String is the key in hex: safe as a file name and in logs (it is a hash
// and holds no secret).
func (k LinkKey) String() string { return hex.EncodeToString(k[:]) }

// Short is the first 12 hex digits, for people.
func (k LinkKey) Short() string { return hex.EncodeToString(k[:6]) }

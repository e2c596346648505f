package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// EventConfirmation is the kind of a cred.Event: a person said whether a
// program may have a protected profile.
const EventConfirmation = "confirmation"

// EventRecoveryKey is the kind of a cred.Event: a recovery key was made, and a
// former one ended.
const EventRecoveryKey = "recovery-key"

// The kinds of entry beside those of cred.Event.
const (
	eventLost     = "lost"     // count events could not be written, for the reason given
	eventRotation = "rotation" // old files go; the last line of the file that is closed
)

const (
	version = 1
	// tornReason is the reason of a lost entry that follows a line which was
	// cut short, where the rest of that line could not be removed.
	tornReason = "a line was cut short"
	fullReason = "more came at once than is kept in memory"

	timeForm   = "2006-01-02T15:04:05.000Z" // RFC 3339, UTC
	expiryForm = "2006-01-02T15:04:05Z"
)

// entry is one line. The order of the fields is that of the file.
type entry struct {
	Version     int         `json:"version"`
	Time        string      `json:"time"` // of the last of those counted
	Count       int64       `json:"count"`
	Event       string      `json:"event"`
	Profile     string      `json:"profile,omitempty"`
	Endpoint    string      `json:"endpoint,omitempty"` // "imds 127.0.0.1:9911", "credential-process"
	Caller      *callerForm `json:"caller,omitempty"`
	AccessKeyID string      `json:"access_key_id,omitempty"`
	AccountID   string      `json:"account_id,omitempty"`
	Expiration  string      `json:"expiration,omitempty"` // as advertised with the last of those counted
	Reason      string      `json:"reason,omitempty"`
	// Oldest, of a rotation alone, is the field previous of the oldest line
	// that is kept.
	Oldest   string `json:"oldest,omitempty"`
	Previous string `json:"previous"`
}

type callerForm struct {
	UID     string `json:"uid,omitempty"`
	User    string `json:"user,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Program string `json:"program,omitempty"`
	Parent  string `json:"parent,omitempty"` // the program that started it
}

// Longest parts of an entry in bytes. What is longer is cut: names are of
// the caller's choosing.
const (
	maxName = 256
	maxPath = 1024
	// maxLine is more than an entry can be: each byte of its parts becomes
	// at most six.
	maxLine = 64 << 10
)

// clip shortens s to max bytes, without a copy.
func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return s[:max]
}

// tidy is a copy of s that is at most max bytes long and ends in a whole
// character.
func tidy(s string, max int) string {
	if len(s) <= max {
		return strings.Clone(s)
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return strings.Clone(s[:max])
}

// encode is the entry as a line, without the line feed.
func (e *entry) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// decode reads a line. ok is false for a line that is no entry.
func decode(line []byte) (e entry, ok bool) {
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &e) != nil {
		return entry{}, false
	}
	return e, e.Version >= 1 && e.Event != "" && e.Previous != ""
}

// when is the entry's time, zero where that can't be read.
func (e *entry) when() time.Time {
	t, err := time.Parse(time.RFC3339, e.Time)
	if err != nil {
		return time.Time{}
	}
	return t
}

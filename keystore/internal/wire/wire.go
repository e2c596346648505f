// Package wire is what keyfobd and its helper keyfob-keyring say to each
// other: one JSON object on a line, one line each way, over an inherited
// socket pair (pipes on Windows). Secrets cross there and nowhere else.
package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
)

// Version is the version of this protocol. Both programs come from one
// build; a difference means that they do not belong together.
const Version = 1

// MaxLine bounds a line each way, in bytes.
const MaxLine = 64 << 10

// ChannelFD is the descriptor of the helper's end of the socket pair, on
// Unix. On Windows the helper uses its standard input and output.
const ChannelFD = 3

// The operations.
const (
	OpGet    = "get"    // Backend, Key, Collection -> Value
	OpSet    = "set"    // Backend, Key, Collection, Value -> Collection
	OpDelete = "delete" // Backend, Key, Collection
	OpDerive = "derive" // Passphrase, KDF -> Value

	// Another program's key pairs, read and never written.
	OpForeignNames = "foreign-names" // Backend, Foreign, Passphrase -> Names
	OpForeignPair  = "foreign-pair"  // Backend, Foreign, Passphrase, Key -> Value: a Pair in JSON
)

// The codes of a Response.
const (
	CodeOK        = "ok"
	CodeNotFound  = "not-found" // the keyring answers and has no such item
	CodeAbsent    = "absent"    // no keyring of that backend can be reached
	CodeLocked    = "locked"
	CodeDismissed = "dismissed"
	CodeRefused   = "refused" // the request is not one that the helper serves
	CodeWrongPass = "wrong-passphrase"
	CodeFailed    = "failed"
)

// Request is one operation.
type Request struct {
	Version    int    `json:"version"`
	Op         string `json:"op"`
	Backend    string `json:"backend,omitempty"`
	Key        string `json:"key,omitempty"`        // "vault-" and the vault's id
	Collection string `json:"collection,omitempty"` // secret-service: as OpSet answered
	Value      []byte `json:"value,omitempty"`      // secret
	Passphrase []byte `json:"passphrase,omitempty"` // secret
	KDF        *KDF   `json:"kdf,omitempty"`

	Foreign *Foreign `json:"foreign,omitempty"`
}

// AWSVault is the one program whose key pairs are read.
const AWSVault = "aws-vault"

// Foreign is where another program keeps its key pairs.
type Foreign struct {
	From     string `json:"from"`               // AWSVault
	Dir      string `json:"dir,omitempty"`      // of the backends file and pass, absolute
	Keychain string `json:"keychain,omitempty"` // of macOS; else the Secret Service's collection, or pass's prefix
}

// Pair is a long-lived key pair. Temporary says that there was a session
// token with it, and then the secret is left out.
type Pair struct {
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key,omitempty"` // secret
	Temporary       bool   `json:"temporary,omitempty"`
}

// KDF are the parameters of Argon2id (RFC 9106).
type KDF struct {
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memory_kib"`
	Threads uint8  `json:"threads"`
	Salt    []byte `json:"salt"`
}

// Valid reports whether the parameters are within what is ever computed: a
// damaged header must not cost all of the machine's memory.
func (k *KDF) Valid() bool {
	return k != nil && k.Time >= 1 && k.Time <= 64 && k.Memory >= 8<<10 && k.Memory <= 2<<20 &&
		k.Threads >= 1 && k.Threads <= 64 && len(k.Salt) >= 16 && len(k.Salt) <= 64
}

// Response is the answer.
type Response struct {
	Version    int    `json:"version"`
	Code       string `json:"code"`
	Message    string `json:"message,omitempty"` // for people, no secret
	Collection string `json:"collection,omitempty"`
	Value      []byte `json:"value,omitempty"` // secret

	Names []string `json:"names,omitempty"` // no secret
}

// ErrTooLong: a line is longer than MaxLine.
var ErrTooLong = errors.New("the line is too long")

// Write writes v as one line.
func Write(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	defer clear(b)
	if len(b) >= MaxLine {
		return ErrTooLong
	}
	line := make([]byte, len(b)+1)
	defer clear(line)
	line[copy(line, b)] = '\n'
	_, err = w.Write(line)
	return err
}

// Read reads one line into v. Errors: io.EOF and io.ErrUnexpectedEOF when
// the other end closed, ErrTooLong, those of encoding/json.
func Read(r io.Reader, v any) error {
	br := bufio.NewReaderSize(r, MaxLine)
	line, err := br.ReadSlice('\n')
	defer clear(line)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return ErrTooLong
	case errors.Is(err, io.EOF) && len(line) > 0:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	return json.Unmarshal(line, v)
}

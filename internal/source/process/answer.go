package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"keyfob/internal/cred"
)

// errExpired stands in the tree of the error of credentials that have ended:
// the next run may give others.
var errExpired = errors.New("expired")

const form = `the form is {"Version":1,"AccessKeyId":…,"SecretAccessKey":…,"SessionToken":…,"Expiration":"2026-01-02T03:04:05Z"}`

// fault is a clause for after "its credential_process …".
func fault(format string, args ...any) error { return cred.WithHint(fmt.Errorf(format, args...), form) }

type answer struct {
	cred.Credentials
	note string // what is not as it should be and does not matter, "" for nothing
}

// parse reads what a program printed. Expires is zero where it says nothing
// of an end. The error is a clause for after "its credential_process"; it
// holds nothing of out but numbers and names of members.
func parse(out cred.Secret, now time.Time) (answer, error) {
	raw := out.AppendReveal(nil)
	defer clear(raw)
	members, err := object(raw)
	if err != nil {
		return answer{}, err
	}
	defer func() {
		for _, m := range members {
			clear(m)
		}
	}()
	if err := version(members["Version"]); err != nil {
		return answer{}, err
	}
	var a answer
	if a.AccessKeyID, err = text(members, "AccessKeyId", true); err != nil {
		return answer{}, err
	}
	secret, err := text(members, "SecretAccessKey", true)
	if err != nil {
		return answer{}, err
	}
	token, err := text(members, "SessionToken", false)
	if err != nil {
		return answer{}, err
	}
	a.SecretAccessKey, a.SessionToken = cred.NewSecret(secret), cred.NewSecret(token)
	if token == "" && strings.HasPrefix(a.AccessKeyID, "ASIA") {
		return answer{}, fault("gives a temporary key and no SessionToken")
	}
	if a.Expires, err = expiration(members["Expiration"], now); err != nil {
		return answer{}, err
	}
	if token == "" && !a.Expires.IsZero() {
		// Nothing of AWS's ends without a token. Whoever says so rotates the
		// key: that it will be asked again is as good.
		a.Expires = time.Time{}
	}
	if account, ok := members["AccountId"]; ok && !null(account) {
		var s string
		if json.Unmarshal(account, &s) == nil && len(s) == 12 && strings.Trim(s, "0123456789") == "" {
			a.AccountID = s
		} else {
			a.note = "AccountId is not a text of twelve digits and is not used"
		}
	}
	return a, nil
}

// object splits the one JSON object that raw is into its members.
func object(raw []byte) (map[string]json.RawMessage, error) {
	if bytes.HasPrefix(raw, []byte{0xff, 0xfe}) || bytes.HasPrefix(raw, []byte{0xfe, 0xff}) {
		return nil, fault("prints UTF-16, and JSON is UTF-8")
	}
	raw = bytes.TrimSpace(bytes.TrimPrefix(raw, []byte("\ufeff")))
	switch {
	case len(raw) == 0:
		return nil, fault("printed nothing")
	case raw[0] != '{' && bytes.IndexByte(raw, '{') > 0:
		return nil, cred.WithHint(errors.New("prints something else before its JSON object"),
			"silence what it says besides its answer, or have it say that on standard error")
	case raw[0] != '{':
		return nil, fault("printed no JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	var members map[string]json.RawMessage
	if err := d.Decode(&members); err != nil {
		var syntax *json.SyntaxError
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fault("printed half a JSON object")
		case errors.As(err, &syntax):
			return nil, fault("printed broken JSON (at byte %d)", syntax.Offset)
		}
		return nil, fault("printed broken JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fault("prints something else after its JSON object")
	}
	return members, nil
}

func null(m json.RawMessage) bool { return string(m) == "null" }

func version(m json.RawMessage) error {
	switch n := string(m); {
	case n == "1":
		return nil
	case len(m) == 0:
		return fault("gives no Version")
	case strings.Trim(n, "0123456789") == "" && len(n) < 10:
		return cred.WithHint(fmt.Errorf("gives Version %s, and only 1 is known", n), "it may be newer than this keyfob")
	}
	return fault("gives a Version that is not the number 1")
}

// text is a member that is a text, "" where it is not there. null counts as
// not there.
func text(members map[string]json.RawMessage, name string, needed bool) (string, error) {
	m, ok := members[name]
	if !ok || null(m) {
		for other := range members {
			if strings.EqualFold(other, name) && other != name {
				return "", fault("spells %s as %s", name, other)
			}
		}
		if needed {
			return "", fault("gives no %s", name)
		}
		return "", nil
	}
	var s string
	if json.Unmarshal(m, &s) != nil {
		return "", fault("gives a %s that is not a text", name)
	}
	if needed && s == "" {
		return "", fault("gives an empty %s", name)
	}
	for _, c := range s {
		if c <= ' ' || c >= 0x7f {
			return "", fault("gives a %s with a space, a line end or another character that no key has", name)
		}
	}
	return s, nil
}

func expiration(m json.RawMessage, now time.Time) (time.Time, error) {
	if len(m) == 0 || null(m) {
		return time.Time{}, nil
	}
	var s string
	if json.Unmarshal(m, &s) != nil {
		return time.Time{}, fault("gives an Expiration that is not a text")
	}
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case s == "":
		return time.Time{}, fault("gives an empty Expiration, where none is to be left out")
	case err != nil:
		if _, zoneless := time.Parse("2006-01-02T15:04:05", strings.Replace(s, " ", "T", 1)); zoneless == nil {
			return time.Time{}, fault("gives an Expiration without a time zone")
		}
		return time.Time{}, fault("gives an Expiration that is not in the form of RFC 3339")
	case !t.After(now):
		return time.Time{}, cred.WithHint(fmt.Errorf("gives credentials that ended at %s%w", t.UTC().Format(time.RFC3339), silent{errExpired}),
			"sign in with that tool again, and check this machine's clock")
	}
	return t.UTC(), nil
}

// silent is an error that is only to be found.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

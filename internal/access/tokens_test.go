package access

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	now := time.UnixMilli(1_790_000_000_123)
	tokens := NewTokens([32]byte{1, 2, 3})
	bind := Binding{Endpoint: "127.0.0.1:9911", UID: "1000", Generation: 7}
	token := tokens.Mint(now, time.Minute, bind)
	if len(token) != 56 || strings.ContainsAny(token, "\r\n= ") {
		t.Fatalf("token %q", token)
	}
	if token == tokens.Mint(now, time.Minute, bind) {
		t.Error("two tokens are the same")
	}
	expires, err := tokens.Verify(token, now, bind)
	if err != nil || !expires.Equal(now.Add(time.Minute)) {
		t.Errorf("expires %v, %v", expires, err)
	}
	if _, err := tokens.Verify(token, now.Add(time.Minute-time.Millisecond), bind); err != nil {
		t.Errorf("just before its end: %v", err)
	}
	if _, err := NewTokens([32]byte{1, 2, 3}).Verify(token, now, bind); err != nil {
		t.Errorf("after a restart: %v", err)
	}

	refused := func(name string, tokens *Tokens, token string, now time.Time, b Binding) {
		t.Helper()
		if expires, err := tokens.Verify(token, now, b); !errors.Is(err, ErrBadToken) || !expires.IsZero() {
			t.Errorf("%s: %v, %v", name, expires, err)
		}
	}
	refused("expired", tokens, token, now.Add(time.Minute), bind)
	refused("another key", NewTokens([32]byte{1, 2, 4}), token, now, bind)
	for name, b := range map[string]Binding{
		"another endpoint":         {"127.0.0.1:9912", "1000", 7},
		"another user":             {"127.0.0.1:9911", "1001", 7},
		"nobody":                   {"127.0.0.1:9911", "", 7},
		"after a logout":           {"127.0.0.1:9911", "1000", 8},
		"an older generation":      {"127.0.0.1:9911", "1000", 6},
		"fields that run together": {"127.0.0.1:99111", "000", 7},
		"nothing":                  {},
	} {
		refused(name, tokens, token, now, b)
	}
	for _, text := range []string{"", " ", token[:55], token + "A", token + "\n", "\n" + token, token[:28] + "\n" + token[28:], token[:27] + "\n" + token[28:],
		strings.Repeat("A", 56), strings.Repeat("_", 56), strings.Repeat("=", 56), strings.Repeat("é", 28), token[:55] + "="} {
		refused("malformed "+text, tokens, text, now, bind)
	}
	// Every bit counts.
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		bad := append([]byte(nil), raw...)
		bad[i/8] ^= 1 << (i % 8)
		refused("changed", tokens, base64.RawURLEncoding.EncodeToString(bad), now, bind)
	}
}

func TestMintBoundsTheLife(t *testing.T) {
	now := time.UnixMilli(1_790_000_000_000)
	tokens := NewTokens([32]byte{9})
	for ttl, want := range map[time.Duration]time.Duration{
		0: time.Second, -time.Hour: time.Second, time.Second: time.Second, 21600 * time.Second: 21600 * time.Second, 21601 * time.Second: 21600 * time.Second,
	} {
		expires, err := tokens.Verify(tokens.Mint(now, ttl, Binding{}), now, Binding{})
		if err != nil || expires.Sub(now) != want {
			t.Errorf("%v: %v, %v", ttl, expires.Sub(now), err)
		}
	}
}

// No token that was not minted is taken, and none makes it crash.
func FuzzVerify(f *testing.F) {
	tokens := NewTokens([32]byte{1})
	b := Binding{Endpoint: "e", UID: "u", Generation: 1}
	now := time.UnixMilli(1_790_000_000_000)
	f.Add(NewTokens([32]byte{2}).Mint(now, time.Hour, b))
	f.Add(tokens.Mint(now, time.Hour, Binding{}))
	f.Add("")
	f.Add(strings.Repeat("A", 56))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := tokens.Verify(token, now, b); err == nil {
			t.Errorf("%q was taken", token)
		}
	})
}

package broker

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// secretsOf is Sources that give what stands in a link.
type secretsOf struct{}

func (secretsOf) For(l profiles.Link) (cred.Source, error) { return secretsSource{l}, nil }

type secretsSource struct{ l profiles.Link }

func (secretsSource) Interactive() bool { return false }

func (s secretsSource) Fetch(_ context.Context, in cred.Input) (cred.Credentials, error) {
	if s.l.Secrets == nil {
		return cred.Credentials{AccessKeyID: "ASIAX", SecretAccessKey: in.Base.SecretAccessKey}, nil
	}
	secret, token := s.l.Secrets.Reveal()
	return cred.Credentials{AccessKeyID: s.l.Secrets.AccessKeyID, SecretAccessKey: cred.NewSecret(secret), SessionToken: cred.NewSecret(token)}, nil
}

// With real files: keys that carry a session token are handed out as they
// are, and a reload takes a corrected secret under the same key id.
func TestKeysOfAFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "credentials")
	load := func(secret string) *profiles.Set {
		text := "[dev]\naws_access_key_id = ASIAFILE\naws_secret_access_key = " + secret + "\naws_session_token = token\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return profiles.Load(profiles.Input{ConfigFile: filepath.Join(dir, "config"), CredentialsFile: file,
			KeyfobFile: filepath.Join(dir, "profiles"), Home: dir})
	}
	b := New(Config{Sources: secretsOf{}, Store: newStore(), Rules: rules{}})
	b.SetProfiles(load("wrong"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	get := func() *cred.Snapshot {
		t.Helper()
		s, err := b.Get(ctx, cred.Request{Caller: self, Profile: "dev"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := get(); s.SecretAccessKey.Reveal() != "wrong" || !s.Temporary() {
		t.Fatal("not the keys of the file")
	}
	b.SetProfiles(load("right"))
	if s := get(); s.SecretAccessKey.Reveal() != "right" {
		t.Fatal("the secret from before the reload")
	}
	if _, err := b.Get(ctx, cred.Request{Caller: self, Profile: "dve"}); cred.HintOf(err) != "did you mean dev?" {
		t.Fatalf("%v, hint %q", err, cred.HintOf(err))
	}
}

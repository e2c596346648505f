package sts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

func TestSessionToken(t *testing.T) {
	w := newWorld(t)
	c, err := w.fetch(t, w.link(profiles.KindSessionToken, "duration_seconds", "43200"), w.base)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(c.Expires); !c.Temporary() || left < 43190*time.Second || left > 43210*time.Second || c.RoleARN != "" || c.AccountID != fakeaws.DefaultAccount {
		t.Errorf("%+v, %v left", c, left)
	}
	if n := len(w.aws.Calls()); n != 1 || len(w.asks.asked) != 0 {
		t.Errorf("%d calls, %d questions", n, len(w.asks.asked))
	}
	// A session of a session is none.
	if _, err := w.fetch(t, w.link(profiles.KindSessionToken), c); !errors.Is(err, cred.ErrConfig) {
		t.Errorf("%v", err)
	}
}

func TestMFACode(t *testing.T) {
	w := newWorld(t)
	l := w.link(profiles.KindSessionToken, "duration_seconds", "43200", "mfa_serial", serial)
	s, err := New(l, w.deps)
	if err != nil || !s.Interactive() {
		t.Fatalf("%v %v", s, err)
	}
	key := cred.LinkKey{1, 2, 3}
	fetch := func() (cred.Credentials, error) {
		t.Helper()
		c, err := s.Fetch(t.Context(), cred.Input{Key: key, Profile: "asked", Base: w.base, Ask: w.asks})
		w.noSecrets(t, err, w.base, c)
		return c, err
	}

	// Nobody can be asked: AWS is not called.
	_, err = fetch()
	var ie *cred.InteractionError
	if !errors.As(err, &ie) || ie.Key != key || len(w.aws.Calls()) != 0 {
		t.Fatalf("%v", err)
	}
	if q := w.asks.asked[0]; q.Kind != cred.AskMFA || q.Profile != "asked" || q.Serial != serial || !strings.Contains(q.Text, serial) {
		t.Errorf("asked %+v", q)
	}

	good := w.aws.MFACode(serial)
	wrong := "000000"
	if wrong == good {
		wrong = "000001"
	}
	for _, x := range []struct {
		code  string
		calls int
	}{{wrong, 1}, {"12345", 1}, {"1234567", 1}, {"abcdef", 1}, {"", 1}, {"１２３４５６", 1}} {
		w.asks.codes = func(cred.Question) (string, error) { return x.code, nil }
		_, err := fetch()
		if !WrongCode(err) || len(w.aws.Calls()) != x.calls {
			t.Errorf("%q: %v after %d calls", x.code, err, len(w.aws.Calls()))
			continue
		}
		e := refusedWith(t, err, CodeWrongMFA, "the code of the MFA device "+serial+" is wrong")
		if len(x.code) >= 6 && strings.Contains(e.Message+e.Help, x.code) {
			t.Error("the code is shown")
		}
		// The way of packages that can't import this one.
		var w interface{ WrongCode() bool }
		if !errors.As(err, &w) || !w.WrongCode() {
			t.Error("not found by its method")
		}
		if errors.As(err, &ie) {
			t.Error("a wrong code is no refusal by the person")
		}
	}
	w.asks.codes = func(cred.Question) (string, error) { return " " + good[:3] + " " + good[3:] + "\n", nil }
	if _, err := fetch(); err != nil {
		t.Fatal(err)
	}
	_, err = fetch() // each code is taken once
	if !WrongCode(err) {
		t.Errorf("the same code again: %v", err)
	}

	// A device of somebody else is not a wrong code.
	s, _ = New(w.link(profiles.KindSessionToken, "mfa_serial", serial+"2"), w.deps)
	_, err = fetch()
	if WrongCode(err) {
		t.Error("another device's code is called wrong")
	}
	refusedWith(t, err, "AccessDenied", serial+"2", "check mfa_serial")
}

func TestAskersErrorsPass(t *testing.T) {
	w := newWorld(t)
	want := errors.New("the context ended")
	w.asks.codes = func(cred.Question) (string, error) { return "", want }
	if _, err := w.fetch(t, w.link(profiles.KindSessionToken, "mfa_serial", serial), w.base); err != want {
		t.Errorf("%v", err)
	}
}

func TestRootKeys(t *testing.T) {
	w := newWorld(t)
	id, secret := w.aws.AddUser(fakeaws.UserSpec{Root: true})
	root := cred.Credentials{AccessKeyID: id, SecretAccessKey: cred.NewSecret(secret)}
	for _, seconds := range []string{"43200", "3600", "900"} {
		_, err := w.fetch(t, w.link(profiles.KindSessionToken, "duration_seconds", seconds), root)
		refusedWith(t, err, "", "root user of account "+fakeaws.DefaultAccount, "delete the root user's access key")
	}
	w.deps.AllowRoot = func(p string) bool { return p == "dev" }
	if _, err := w.fetch(t, w.link(profiles.KindSessionToken, "duration_seconds", "43200"), root); err != nil {
		t.Error(err)
	}
	_, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", w.aws.AddRole(fakeaws.RoleSpec{})), root)
	refusedWith(t, err, "AccessDenied", "no root user assume a role")

	// Others are asked about once, and only where it may be root.
	w.deps.AllowRoot = nil
	w.aws.ResetCalls()
	s, err := New(w.link(profiles.KindSessionToken, "duration_seconds", "1800"), w.deps)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Fetch(t.Context(), cred.Input{Base: w.base, Ask: w.asks}); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.aws.Count("GetCallerIdentity"); n != 1 {
		t.Errorf("%d identity calls", n)
	}
	who, err := Identity(t.Context(), w.client(), root)
	if err != nil || !who.Root || who.AccountID != fakeaws.DefaultAccount {
		t.Errorf("%+v %v", who, err)
	}
	who, err = Identity(t.Context(), w.client(), w.base)
	if err != nil || who.Root || who.ARN != "arn:aws:iam::111122223333:user/alice" || who.UserID == "" {
		t.Errorf("%+v %v", who, err)
	}
}

// store is a cred.Store of one record.
type store struct {
	name  string
	value cred.Secret
	err   error
}

func (s *store) Get(_ context.Context, name string) (cred.Secret, error) {
	if s.err != nil {
		return cred.Secret{}, s.err
	}
	if name != s.name {
		return cred.Secret{}, cred.ErrNotFound
	}
	return s.value, nil
}
func (s *store) Put(context.Context, string, cred.Secret) error { return errors.New("not here") }
func (s *store) Delete(context.Context, string) error           { return errors.New("not here") }
func (s *store) List(context.Context, string) ([]string, error) { return nil, nil }

func TestKeysInTheVault(t *testing.T) {
	pair := cred.Credentials{AccessKeyID: "AKIAX", SecretAccessKey: cred.NewSecret("s3cr3t<&>"), AccountID: "111122223333"}
	st := &store{name: "key/dev", value: EncodeKeys(pair)}
	w := newWorld(t)
	w.deps.Store = st
	l := w.link(profiles.KindStaticKeys, "layer", "keystore", "aws_access_key_id", "AKIAX")
	c, err := w.fetch(t, l, cred.Credentials{})
	if err != nil || c.AccessKeyID != "AKIAX" || !c.SecretAccessKey.Equal(pair.SecretAccessKey) || c.AccountID != pair.AccountID || c.Temporary() {
		t.Errorf("%+v %v", c, err)
	}
	for _, x := range []struct {
		st   store
		is   error
		want string
	}{
		{store{name: "key/other"}, cred.ErrNotFound, "the vault has no keys of it"},
		{store{err: cred.ErrLocked}, cred.ErrLocked, "cannot read the keys of profile dev: the vault is locked"},
		{store{err: cred.WithHint(cred.ErrLocked, "keyfob unlock")}, cred.ErrLocked, "locked"},
		{store{name: "key/dev", value: cred.NewSecret("s3cr3t-canary{")}, cred.ErrConfig, "not one of a key pair"},
		{store{name: "key/dev", value: cred.NewSecret(`{"version":2}`)}, cred.ErrConfig, "newer keyfob"},
		{store{name: "key/dev", value: cred.NewSecret(`{"version":1,"access_key_id":"A"}`)}, cred.ErrConfig, "half a key pair"},
		{store{name: "key/dev", value: cred.NewSecret(`{}`)}, cred.ErrConfig, "not one of a key pair"},
	} {
		w.deps.Store = &x.st
		_, err := w.fetch(t, l, cred.Credentials{})
		if !errors.Is(err, x.is) || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v, want %q", err, x.want)
		}
	}
	w.deps.Store = nil
	if _, err := w.fetch(t, l, cred.Credentials{}); !errors.Is(err, cred.ErrConfig) {
		t.Errorf("no store: %v", err)
	}
}

// TestKeysInFiles goes through profiles, which alone can make such links.
func TestKeysInFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "credentials")
	text := "[dev]\naws_access_key_id=AKIAFILE\naws_secret_access_key=file-secret\n" +
		"[temp]\naws_access_key_id=ASIAFILE\naws_secret_access_key=temp-secret\naws_session_token=temp-token\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set := profiles.Load(profiles.Input{CredentialsFile: file, ConfigFile: filepath.Join(dir, "config"), KeyfobFile: filepath.Join(dir, "profiles"), Home: dir,
		Env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env-secret", "AWS_SESSION_TOKEN": "env-token"}})
	w := newWorld(t)
	for _, x := range []struct {
		name              string
		how               profiles.OriginKind
		id, secret, token string
	}{
		{"dev", profiles.FromFlag, "AKIAFILE", "file-secret", ""},
		{"temp", profiles.FromFlag, "ASIAFILE", "temp-secret", "temp-token"},
		{"dev", profiles.FromEnvironment, "AKIAENV", "env-secret", "env-token"},
	} {
		p, err := set.Resolve(profiles.Query{Profile: x.name, ProfileOrigin: profiles.Origin{Kind: x.how}})
		if err != nil || p.Err != nil || len(p.Chain) == 0 {
			t.Fatalf("%s: %v %v", x.name, p, err)
		}
		c, err := w.fetch(t, p.Chain[0], cred.Credentials{})
		if err != nil || c.AccessKeyID != x.id || c.SecretAccessKey.Reveal() != x.secret || c.SessionToken.Reveal() != x.token || !c.Expires.IsZero() {
			t.Errorf("%s: %+v %v", x.name, c, err)
		}
	}
	if _, err := w.fetch(t, w.link(profiles.KindStaticKeys, "layer", "config"), cred.Credentials{}); !errors.Is(err, cred.ErrConfig) {
		t.Errorf("no keys: %v", err)
	}
}

func TestAccountOfKey(t *testing.T) {
	for _, id := range []string{
		"AKIAIOSFODNN7EXAMPLE", // the documentation's: an old id, whose first bit is 0
		"AKIA0189018901890189", // not base32
		"AROAQQQQQQQQQQQQQQQQ", // a role's
		"AKIA7777777777777777", // more than twelve digits
		"AKIAQ", "",
	} {
		if got, ok := accountOfKey(id); ok {
			t.Errorf("%q: %q", id, got)
		}
	}
	aws := fakeaws.New()
	for _, acct := range []string{"111122223333", "000000000001", "999999999999", "012345678901"} {
		id, _ := aws.AddUser(fakeaws.UserSpec{Name: "u" + acct, Account: acct})
		if got, ok := accountOfKey(id); !ok || got != acct {
			t.Errorf("%s of account %s: %q %v", id, acct, got, ok)
		}
	}
}

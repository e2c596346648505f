package sso

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// cliWorld is a world in which somebody has signed in with the AWS command
// line, and nobody can be asked.
func cliWorld(t *testing.T, share bool) *world {
	t.Helper()
	w := newWorld(t, people())
	w.deps.CacheDir = filepath.Join(t.TempDir(), ".aws", "sso", "cache")
	w.deps.ShareCache = func() bool { return share }
	w.person.is(nobody)
	if err := os.MkdirAll(w.deps.CacheDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return w
}

// cliSignIn writes what `aws sso login` does.
func (w *world) cliSignIn(path string, change func(map[string]any)) fakeaws.SSOTokens {
	w.t.Helper()
	x, err := w.aws.NewSSOTokens(startURL)
	if err != nil {
		w.t.Fatal(err)
	}
	m := map[string]any{"startUrl": x.StartURL, "region": x.Region, "accessToken": x.AccessToken, "expiresAt": x.Expires.UTC().Format("2006-01-02T15:04:05Z"),
		"clientId": x.ClientID, "clientSecret": x.ClientSecret, "registrationExpiresAt": x.RegistrationUntil.UTC().Format("2006-01-02T15:04:05Z"), "refreshToken": x.RefreshToken,
		"somethingNew": map[string]any{"a": 1}}
	if change != nil {
		change(m)
	}
	b, _ := json.Marshal(m)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.vault.remember(x.AccessToken, x.RefreshToken, x.ClientSecret)
	return x
}

func cached(t *testing.T, path string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheCommandLinesTokenIsUsed(t *testing.T) {
	w := cliWorld(t, false)
	path := w.sessionPath("corp")
	for name, change := range map[string]func(map[string]any){
		"as botocore writes it": nil,
		"as it used to":         func(m map[string]any) { m["expiresAt"] = strings.TrimSuffix(m["expiresAt"].(string), "Z") + "UTC" },
		"with nothing to refresh": func(m map[string]any) {
			for _, k := range []string{"refreshToken", "clientId", "clientSecret", "registrationExpiresAt", "somethingNew"} {
				delete(m, k)
			}
		},
		"about to end": func(m map[string]any) { m["expiresAt"] = time.Now().Add(time.Minute).UTC().Format(time.RFC3339) },
	} {
		w.cliSignIn(path, change)
		if _, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.count("CreateToken", 0, "RegisterClient", 0)
	// It is the command line's: nothing of it is refreshed, kept, or locked.
	before, _ := os.ReadFile(path)
	w.aws.ExpireSSOTokens()
	var e *cred.InteractionError
	if _, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil); !errors.As(err, &e) {
		t.Error(err)
	}
	w.count("CreateToken", 0)
	if after, _ := os.ReadFile(path); string(before) != string(after) {
		t.Error("the file was changed")
	}
	files, _ := os.ReadDir(w.deps.CacheDir)
	if len(files) != 1 {
		t.Errorf("files %v", files)
	}
	// Signed in again there: used at once.
	w.cliSignIn(path, nil)
	w.ok(w.link("corp", dev, "ReadOnly"))

	// A profile of the older form has the file of its start URL.
	legacy := w.sessionPath(startURL)
	w.cliSignIn(legacy, nil)
	w.ok(w.link("", dev, "ReadOnly"))
}

// sessionPath is the file of a name, by the command line's own rule.
func (w *world) sessionPath(name string) string {
	in := signIn{name: name, d: w.deps}
	return in.cachePath()
}

// TestCacheFileNames: computed with sha1sum.
func TestCacheFileNames(t *testing.T) {
	in := signIn{name: "my-sso", d: Deps{CacheDir: "d"}}
	if got := in.cachePath(); got != filepath.Join("d", "0ad374308c5a4e22f723adf10145eafad7c4031c.json") {
		t.Error(got)
	}
	in = signIn{start: startURL, d: Deps{CacheDir: "d"}}
	if got := in.cachePath(); got != filepath.Join("d", "7487b5b67d5fa1132cf33fa93ae51ef38cc37752.json") {
		t.Error(got)
	}
	if CacheDir("") != "" || CacheDir("h") != filepath.Join("h", ".aws", "sso", "cache") {
		t.Error(CacheDir("h"))
	}
}

func TestUselessCacheFiles(t *testing.T) {
	w := cliWorld(t, false)
	path := w.sessionPath("corp")
	for name, change := range map[string]func(map[string]any){
		"another start URL": func(m map[string]any) { m["startUrl"] = "https://other.awsapps.com/start" },
		"another region":    func(m map[string]any) { m["region"] = "us-east-1" },
		"ended":             func(m map[string]any) { m["expiresAt"] = "2024-01-02T03:04:05Z" },
		"no time":           func(m map[string]any) { m["expiresAt"] = "tomorrow" },
		"no token":          func(m map[string]any) { delete(m, "accessToken") },
		"another type":      func(m map[string]any) { m["accessToken"] = 7 },
	} {
		w.cliSignIn(path, change)
		var e *cred.InteractionError
		if _, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, content := range []string{"", "null", "[]", "{", "\x00\xff", strings.Repeat(" ", maxCache+1)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var e *cred.InteractionError
		if _, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil); !errors.As(err, &e) {
			t.Errorf("%.9q: %v", content, err)
		}
	}
	w.count("GetRoleCredentials", 0)
}

func TestTheCacheIsShared(t *testing.T) {
	w := cliWorld(t, true)
	path, l := w.sessionPath("corp"), w.link("corp", dev, "ReadOnly")
	ended := func(m map[string]any) {
		m["expiresAt"] = time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04:05UTC")
	}
	x := w.cliSignIn(path, ended)
	w.ok(l)
	w.count("CreateToken", 1, "GetRoleCredentials", 1)
	m := cached(t, path)
	if m["accessToken"] == x.AccessToken || m["refreshToken"] == x.RefreshToken || m["clientId"] != x.ClientID || m["startUrl"] != startURL || m["region"] != "eu-west-1" {
		t.Errorf("written back: %v", m)
	}
	if n, ok := m["somethingNew"].(map[string]any); !ok || n["a"] != 1.0 {
		t.Errorf("an unknown member is gone: %v", m)
	}
	if at, err := time.Parse("2006-01-02T15:04:05Z", m["expiresAt"].(string)); err != nil || time.Until(at) < 58*time.Minute {
		t.Errorf("expiresAt %v, %v", m["expiresAt"], err)
	}
	for _, p := range []string{path, path + ".lock"} {
		if info, err := os.Stat(p); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	if files, _ := os.ReadDir(w.deps.CacheDir); len(files) != 2 {
		t.Errorf("left behind: %v", files)
	}

	// The command line refreshed meanwhile, or signed in anew: its tokens are
	// newer, and ours may be used up.
	y := w.cliSignIn(path, func(m map[string]any) {
		m["expiresAt"] = time.Now().Add(2 * time.Hour).UTC().Format("2006-01-02T15:04:05Z")
	})
	w.ok(l)
	w.count("CreateToken", 0)
	w.aws.ExpireSSOTokens()
	w.ok(l)
	w.count("CreateToken", 1)
	if m := cached(t, path); m["clientId"] != y.ClientID || m["refreshToken"] == y.RefreshToken {
		t.Error("it was not the command line's token that was refreshed")
	}

	// Where that has ended, ours is not tried: it may be an older one of the
	// same sign-in.
	w.cliSignIn(path, func(m map[string]any) {
		m["expiresAt"] = time.Now().Add(3 * time.Hour).UTC().Format("2006-01-02T15:04:05Z")
	})
	w.aws.EndSSOSessions()
	w.aws.ResetCalls()
	var e *cred.InteractionError
	if _, err := w.fetch(l, nil); !errors.As(err, &e) {
		t.Error(err)
	}
	w.count("CreateToken", 1)

	w.asks(cred.AskBrowser)
	// Ours is written, too.
	w.aws.EndSSOSessions()
	w.person.is(nil)
	w.ok(l)
	w.asks(cred.AskBrowser)
	if m := cached(t, path); m["accessToken"] != w.record(l).access.Reveal() || m["somethingNew"] == nil {
		t.Errorf("a sign-in is not shared: %v", m)
	}
	if err := Logout(t.Context(), l, w.deps); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file outlives the sign-out")
	}
}

// TestTwoKeyfobsShareACache: of two daemons with vaults of their own one
// refreshes, and the other takes what it got.
func TestTwoKeyfobsShareACache(t *testing.T) {
	w := cliWorld(t, true)
	path := w.sessionPath("corp")
	w.cliSignIn(path, func(m map[string]any) { m["expiresAt"] = "2024-01-02T03:04:05Z" })
	w.aws.SetLatency("CreateToken", 30*time.Millisecond)
	var wg sync.WaitGroup
	for range 6 {
		d := w.deps
		d.Store, d.Sessions = &vault{}, NewSessions()
		wg.Go(func() {
			s, err := New(w.link("corp", dev, "ReadOnly"), d)
			if err == nil {
				_, err = s.Fetch(t.Context(), cred.Input{Profile: "x", Ask: w.person})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.count("CreateToken", 1, "reused:refresh_token", 0)
	w.asks()
}

// TestInvalidGrantWhileTheCommandLineRefreshes: it has no lock; the cache is
// read once more before a person is asked.
func TestInvalidGrantWhileTheCommandLineRefreshes(t *testing.T) {
	w := cliWorld(t, true)
	path, l := w.sessionPath("corp"), w.link("corp", dev, "ReadOnly")
	w.cliSignIn(path, func(m map[string]any) { m["expiresAt"] = "2024-01-02T03:04:05Z" })
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Seconds: 0.2, Action: "CreateToken"})
	var wg sync.WaitGroup
	wg.Go(func() { w.ok(l) })
	if err := wait(t, func() bool { return w.aws.Count("CreateToken") == 1 }); err != nil {
		t.Fatal(err)
	}
	w.aws.EndSSOSessions()
	w.cliSignIn(path, nil)
	wg.Wait()
	w.asks()
	w.count("CreateToken", 1, "GetRoleCredentials", 1)
}

func TestACacheThatCantBeWritten(t *testing.T) {
	w := cliWorld(t, true)
	w.person.is(nil)
	w.deps.CacheDir = filepath.Join(w.deps.CacheDir, "file")
	if err := os.WriteFile(w.deps.CacheDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := w.link("corp", dev, "ReadOnly")
	w.ok(l) // a sign-in is not lost for that
	w.lateToken(0)
	_, err := w.fetch(l, nil)
	if !errors.Is(err, cred.ErrUnavailable) || !strings.Contains(err.Error(), ".lock") || cred.HintOf(err) == "" {
		t.Errorf("%v, hint %q", err, cred.HintOf(err))
	}
}

func TestTheLockIsWaitedFor(t *testing.T) {
	in := signIn{name: "corp", d: Deps{CacheDir: t.TempDir(), ShareCache: func() bool { return true }}}
	unlock, err := in.lockCache(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := in.lockCache(ctx); err == nil || !strings.Contains(err.Error(), "another process holds it") {
		t.Error(err)
	}
	time.AfterFunc(30*time.Millisecond, unlock)
	again, err := in.lockCache(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// FuzzCache: whatever the file holds is a token with its end, or an error
// that quotes nothing of it.
func FuzzCache(f *testing.F) {
	f.Add(`{"accessToken":"CANARY","expiresAt":"2026-01-02T03:04:05UTC","startUrl":"` + startURL + `/#/","region":"eu-west-1"}`)
	f.Add(`{"accessToken":"CANARY","expiresAt":"2026-01-02T03:04:05Z","refreshToken":"CANARY","clientId":"i","clientSecret":"CANARY","registrationExpiresAt":"CANARY"}`)
	f.Add(`{"accessToken":"CANARY","expiresAt":"2026-01-02T03:04:05.123456+01:00"}`)
	f.Add(`{"accessToken":{"CANARY":1}}`)
	in := signIn{start: startURL, region: "eu-west-1"}
	f.Fuzz(func(t *testing.T, content string) {
		x, err := in.parseCache([]byte(content))
		if err != nil {
			if x != nil || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v, %q", x, err)
			}
			return
		}
		if x.access.IsZero() || x.expires.IsZero() && !strings.Contains(content, "0001") || !x.refresh.IsZero() && (x.clientID == "" || x.clientSecret.IsZero()) {
			t.Errorf("%+v of %q", x, content)
		}
	})
}

package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// memory is a Store that can be locked and can fail. It is not the real one
// because access may not import keystore.
type memory struct {
	mu      sync.Mutex // guards the rest
	records map[string]cred.Secret
	locked  bool
	fail    error // of Put and Delete
}

func newMemory() *memory { return &memory{records: map[string]cred.Secret{}} }

func (m *memory) Get(_ context.Context, name string) (cred.Secret, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[name]
	switch {
	case m.locked:
		return cred.Secret{}, cred.ErrLocked
	case !ok:
		return cred.Secret{}, cred.ErrNotFound
	}
	return r, nil
}

func (m *memory) Put(_ context.Context, name string, value cred.Secret) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return cred.ErrLocked
	}
	if m.fail == nil {
		m.records[name] = value
	}
	return m.fail
}

func (m *memory) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.records[name]; !ok {
		return cred.ErrNotFound
	}
	if m.fail == nil {
		delete(m.records, name)
	}
	return m.fail
}

func (m *memory) List(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for n := range m.records {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

func add(t *testing.T, g *Grants, spec GrantSpec) (*Grant, string) {
	t.Helper()
	if spec.UID == "" {
		spec.UID = owner
	}
	if spec.Profiles == nil {
		spec.Profiles = []string{"app"}
	}
	grant, token, err := g.Add(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return grant, token.Reveal()
}

func TestGrant(t *testing.T) {
	store := newMemory()
	dir := filepath.Join(t.TempDir(), "grants")
	g := OpenGrants(store, dir)
	if _, err := os.Stat(dir); err == nil {
		t.Error("OpenGrants made the directory")
	}
	spec := GrantSpec{Profiles: []string{"app", "db"}, UID: owner, Note: "nightly job", Expires: time.Now().Add(time.Hour)}
	grant, token := add(t, g, spec)
	spec.Profiles[0] = "changed"
	if grant.Version != 1 || len(grant.ID) != 32 || !grant.Covers("app") || !grant.Covers("db") || grant.Covers("other") || grant.UID != owner || grant.Note != "nightly job" {
		t.Errorf("grant %+v", grant)
	}
	if len(token) < 43 || strings.ContainsAny(token, " \r\n") {
		t.Errorf("token of %d characters", len(token))
	}

	file, err := os.ReadFile(grant.TokenFile)
	if err != nil || string(file) != token {
		t.Errorf("token file: %v; equal %v", err, string(file) == token)
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]os.FileMode{grant.TokenFile: 0o600, dir: 0o700 | os.ModeDir} {
			if info, err := os.Lstat(path); err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".*")); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}

	// At rest and in every printed form there is no token.
	record := store.records["grant/"+grant.ID].Reveal()
	printed := fmt.Sprintf("%+v %#v %+v", grant, *grant, g.List())
	if strings.Contains(record, token) || strings.Contains(printed, token) {
		t.Error("the token is at rest")
	}
	var version struct{ Version int }
	sum := sha256.Sum256([]byte(token))
	if err := json.Unmarshal([]byte(record), &version); err != nil || version.Version != 1 || !strings.Contains(record, hex.EncodeToString(sum[:])) {
		t.Errorf("record %s", record)
	}

	now := time.Now()
	if got, err := g.ByToken(token, now); err != nil || got.ID != grant.ID {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", token[:len(token)-1], token + "=", token + "\n", "Bearer " + token, grant.ID, strings.ToUpper(token)} {
		if got, err := g.ByToken(bad, now); !errors.Is(err, ErrBadToken) || got != nil {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
	if _, err := g.ByToken(token, now.Add(time.Hour)); !errors.Is(err, ErrBadToken) {
		t.Errorf("expired: %v", err)
	}
	if _, err := g.ByPath(grant.ID, now); !errors.Is(err, ErrBadToken) {
		t.Errorf("by path, not relative: %v", err)
	}

	relative, relativeToken := add(t, g, GrantSpec{Relative: true, Expires: now.Add(time.Minute)})
	if got, err := g.ByPath(relative.ID, now); err != nil || got.ID != relative.ID {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := g.ByPath(relative.ID, now.Add(time.Minute)); !errors.Is(err, ErrBadToken) {
		t.Errorf("expired by path: %v", err)
	}
	if _, err := g.ByToken(relativeToken, now); err != nil {
		t.Errorf("a relative grant's token: %v", err)
	}

	if err := g.Remove(t.Context(), grant.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := g.ByToken(token, now); !errors.Is(err, ErrBadToken) {
		t.Errorf("removed: %v", err)
	}
	if _, err := os.Stat(grant.TokenFile); !os.IsNotExist(err) {
		t.Errorf("its token file: %v", err)
	}
	if len(store.records) != 1 || len(g.List()) != 1 {
		t.Errorf("records %d, list %v", len(store.records), g.List())
	}
	for _, id := range []string{grant.ID, "", "../x", "nonsense", strings.Repeat("0", 32)} {
		if err := g.Remove(t.Context(), id); !errors.Is(err, cred.ErrNotFound) {
			t.Errorf("remove %q: %v", id, err)
		}
	}
}

func TestGrantsSurviveARestart(t *testing.T) {
	store, dir := newMemory(), t.TempDir()
	first := OpenGrants(store, dir)
	kept, token := add(t, first, GrantSpec{AnyUser: true, Note: "n", Relative: true})
	store.locked = true
	second := OpenGrants(store, dir)
	if err := second.Load(t.Context()); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	if _, err := second.ByToken(token, time.Now()); !errors.Is(err, ErrBadToken) {
		t.Errorf("before it was read: %v", err)
	}
	store.locked = false
	for range 2 {
		if err := second.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := second.ByToken(token, time.Now())
	if err != nil || got.ID != kept.ID || !got.AnyUser || !got.Relative || got.Note != "n" || got.TokenFile != kept.TokenFile || !got.Created.Equal(kept.Created) || !got.Expires.IsZero() {
		t.Errorf("%+v, %v; want %+v", got, err, kept)
	}
	if b, err := os.ReadFile(kept.TokenFile); err != nil || string(b) != token {
		t.Errorf("its token file: %v", err)
	}
}

func TestGrantsWhileLocked(t *testing.T) {
	store, dir := newMemory(), t.TempDir()
	g := OpenGrants(store, dir)
	old, token := add(t, g, GrantSpec{})
	store.locked = true
	if _, err := g.ByToken(token, time.Now()); err != nil {
		t.Errorf("a grant in memory: %v", err)
	}
	if _, secret, err := g.Add(t.Context(), GrantSpec{Profiles: []string{"app"}, UID: owner}); !errors.Is(err, cred.ErrLocked) || !secret.IsZero() {
		t.Errorf("add: %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
	if len(g.List()) != 1 {
		t.Errorf("list: %v", g.List())
	}
	// What was never read can still be removed.
	fresh := OpenGrants(store, dir)
	_ = fresh.Load(t.Context())
	if err := fresh.Remove(t.Context(), old.ID); err != nil || len(store.records) != 0 {
		t.Errorf("%v, %d records", err, len(store.records))
	}
}

// A logout while the records could not be read holds when they can.
func TestRemoveProfileBeforeLoad(t *testing.T) {
	store, dir := newMemory(), t.TempDir()
	_, token := add(t, OpenGrants(store, dir), GrantSpec{})
	_, other := add(t, OpenGrants(store, dir), GrantSpec{Profiles: []string{"db"}})
	g := OpenGrants(store, dir)
	store.locked = true
	_ = g.Load(t.Context())
	if err := g.RemoveProfile(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	store.locked = false
	if err := g.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := g.ByToken(token, time.Now()); !errors.Is(err, ErrBadToken) {
		t.Errorf("came back: %v", err)
	}
	if _, err := g.ByToken(other, time.Now()); err != nil {
		t.Errorf("another profile's: %v", err)
	}
	// and does not hold for what is made later
	_, again := add(t, g, GrantSpec{})
	next := OpenGrants(store, dir)
	if err := next.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := next.ByToken(again, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestRemoveProfile(t *testing.T) {
	g := OpenGrants(newMemory(), t.TempDir())
	_, a := add(t, g, GrantSpec{Profiles: []string{"app"}})
	_, ab := add(t, g, GrantSpec{Profiles: []string{"db", "app"}})
	_, b := add(t, g, GrantSpec{Profiles: []string{"db"}})
	if err := g.RemoveProfile(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]error{a: ErrBadToken, ab: ErrBadToken, b: nil} {
		if _, err := g.ByToken(token, time.Now()); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

func TestPruneExec(t *testing.T) {
	store := newMemory()
	g := OpenGrants(store, t.TempDir())
	mine, token := add(t, g, GrantSpec{ExecPID: os.Getpid()})
	if start, err := peer.StartTime(os.Getpid()); err != nil || mine.ExecStart != start || start == 0 {
		t.Errorf("start %d, want %d, %v", mine.ExecStart, start, err)
	}
	// the same PID, but another process
	_, gone := add(t, g, GrantSpec{ExecPID: os.Getpid(), ExecStart: mine.ExecStart + 1})
	_, lasting := add(t, g, GrantSpec{})
	if err := g.PruneExec(t.Context(), peer.Alive); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]error{token: nil, gone: ErrBadToken, lasting: nil} {
		if _, err := g.ByToken(token, time.Now()); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if len(store.records) != 2 {
		t.Errorf("%d records", len(store.records))
	}
	if _, _, err := g.Add(t.Context(), GrantSpec{Profiles: []string{"app"}, UID: owner, ExecPID: 1 << 30}); err == nil {
		t.Error("a grant for a process that is not there")
	}
}

func TestExpiredGrantsArePruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, dir := newMemory(), t.TempDir()
		g := OpenGrants(store, dir)
		short, _ := add(t, g, GrantSpec{Expires: time.Now().Add(time.Minute)})
		add(t, g, GrantSpec{})
		time.Sleep(time.Minute)
		if l := g.List(); len(l) != 1 || l[0].ID == short.ID {
			t.Errorf("list %+v", l)
		}
		again := OpenGrants(store, dir)
		if err := again.Load(t.Context()); err != nil || len(store.records) != 1 {
			t.Errorf("%v, %d records", err, len(store.records))
		}
		if _, err := os.Stat(short.TokenFile); !os.IsNotExist(err) {
			t.Errorf("token file: %v", err)
		}
		next, _ := add(t, g, GrantSpec{Expires: time.Now().Add(time.Minute)})
		time.Sleep(time.Minute)
		if err := g.Prune(t.Context()); err != nil || store.records["grant/"+next.ID].Len() != 0 {
			t.Errorf("Prune: %v", err)
		}
		if _, _, err := g.Add(t.Context(), GrantSpec{Profiles: []string{"app"}, UID: owner, Expires: time.Now()}); err == nil {
			t.Error("a grant that has expired")
		}
	})
}

func TestTokenFileOfChoice(t *testing.T) {
	dir := t.TempDir()
	g := OpenGrants(newMemory(), filepath.Join(dir, "grants"))
	path := filepath.Join(dir, "token")
	first, _ := add(t, g, GrantSpec{TokenFile: path})
	_, second := add(t, g, GrantSpec{TokenFile: path}) // over an older token
	if b, err := os.ReadFile(path); err != nil || string(b) != second {
		t.Errorf("%v", err)
	}
	if err := g.Remove(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != second {
		t.Errorf("removing the first took the second's file: %v", err)
	}

	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(precious, link); err != nil {
		t.Skipf("%s: no symbolic links here: %v", t.Name(), err)
	}
	for _, bad := range []string{precious, link, dir, "relative", filepath.Join(dir, "no", "such", "dir")} {
		if _, _, err := g.Add(t.Context(), GrantSpec{Profiles: []string{"app"}, UID: owner, TokenFile: bad}); err == nil || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if b, _ := os.ReadFile(precious); string(b) != "mine" {
		t.Error("overwritten")
	}
	if n := len(g.List()); n != 1 {
		t.Errorf("%d grants", n)
	}
}

func TestAddRefuses(t *testing.T) {
	g := OpenGrants(newMemory(), t.TempDir())
	for _, spec := range []GrantSpec{{UID: owner}, {Profiles: []string{"app"}}} {
		if _, _, err := g.Add(t.Context(), spec); err == nil {
			t.Errorf("%+v was taken", spec)
		}
	}
}

func TestStoreThatFails(t *testing.T) {
	store, dir := newMemory(), t.TempDir()
	g := OpenGrants(store, dir)
	kept, token := add(t, g, GrantSpec{})
	store.fail = errors.New("the disk is full")
	if _, _, err := g.Add(t.Context(), GrantSpec{Profiles: []string{"app"}, UID: owner}); !errors.Is(err, store.fail) {
		t.Errorf("add: %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 || len(g.List()) != 1 {
		t.Errorf("left behind: %v %v", files, g.List())
	}
	// Revoked all the same, and the failure is told.
	if err := g.Remove(t.Context(), kept.ID); !errors.Is(err, store.fail) {
		t.Errorf("remove: %v", err)
	}
	if _, err := g.ByToken(token, time.Now()); !errors.Is(err, ErrBadToken) {
		t.Errorf("after a failed removal: %v", err)
	}
}

func TestLoadSkipsWhatItCannotUse(t *testing.T) {
	store, dir := newMemory(), t.TempDir()
	_, token := add(t, OpenGrants(store, dir), GrantSpec{})
	id := strings.Repeat("ab", 16)
	for name, record := range map[string]string{
		"grant/x":     "canary-no-json",
		"grant/y":     `{"version":1,"id":"z","profiles":["app"],"uid":"1","token_sha256":""}`,
		"grant/" + id: `{"version":2,"id":"` + id + `"}`,
	} {
		store.records[name] = cred.NewSecret(record)
	}
	orphan := filepath.Join(dir, strings.Repeat("cd", 16)+".token")
	foreign := filepath.Join(dir, "notes.token")
	for _, path := range []string{orphan, foreign} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := OpenGrants(store, dir)
	err := g.Load(t.Context())
	if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "grant/x") || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("error: %v", err)
	}
	if _, err := g.ByToken(token, time.Now()); err != nil {
		t.Errorf("the good one: %v", err)
	}
	if len(store.records) != 4 {
		t.Errorf("%d records: one of a newer version must stay", len(store.records))
	}
	if _, err := os.Stat(orphan); err != nil {
		t.Error("a token file was swept although not all records could be read")
	}
	for _, name := range []string{"grant/x", "grant/y", "grant/" + id} {
		delete(store.records, name)
	}
	if err := g.Load(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(orphan); !os.IsNotExist(err) {
		t.Error("an orphan stays")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("a file that is not ours was swept")
	}
}

func TestGrantsTogether(t *testing.T) {
	g := OpenGrants(newMemory(), t.TempDir())
	_, steady := add(t, g, GrantSpec{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				grant, token, err := g.Add(t.Context(), GrantSpec{Profiles: []string{"x"}, UID: owner})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := g.ByToken(token.Reveal(), time.Now()); err != nil {
					t.Error(err)
				}
				_ = g.Load(t.Context())
				if err := g.Remove(t.Context(), grant.ID); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 1000 {
				if _, err := g.ByToken(steady, time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(g.List()) != 1 {
		t.Errorf("%d grants", len(g.List()))
	}
}

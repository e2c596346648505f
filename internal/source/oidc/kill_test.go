package oidc

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

// killEnv holds what the process of TestKill works from.
const killEnv = "OIDC_TEST_KILL"

type killed_ struct {
	Dir  string
	Link profiles.Link
}

// files is a cred.Store of plain files, for a process that is killed.
type files string

func (d files) path(name string) string {
	return filepath.Join(string(d), hex.EncodeToString([]byte(name)))
}

func (d files) Get(_ context.Context, name string) (cred.Secret, error) {
	b, err := os.ReadFile(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return cred.Secret{}, cred.ErrNotFound
	}
	return cred.SecretBytes(b), err
}

func (d files) Put(_ context.Context, name string, v cred.Secret) error {
	return os.WriteFile(d.path(name), []byte(v.Reveal()), 0o600)
}
func (d files) Delete(_ context.Context, name string) error    { return os.Remove(d.path(name)) }
func (d files) List(context.Context, string) ([]string, error) { return nil, nil }

// killed is the process that TestKill starts: it fetches, and does not end.
func killed() {
	var k killed_
	if err := json.Unmarshal([]byte(os.Getenv(killEnv)), &k); err != nil {
		panic(err)
	}
	src, err := New(k.Link, Deps{Store: files(k.Dir), Sessions: NewSessions(),
		Pool: awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})})
	if err != nil {
		panic(err)
	}
	_, err = src.Fetch(context.Background(), cred.Input{Profile: "asked", Ask: &person{does: nobody}})
	panic(err)
}

// TestKill: a process that is killed between a refresh request and its answer
// never sends the token again, and a person is asked.
func TestKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	w.must()
	w.expire()
	dir := files(t.TempDir())
	for name, v := range w.vault.all() {
		if err := dir.Put(t.Context(), name, v); err != nil {
			t.Fatal(err)
		}
	}
	reached := make(chan string, 10)
	w.idp.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/token") {
			return false
		}
		_ = r.ParseForm()
		reached <- r.PostForm.Get("refresh_token")
		<-r.Context().Done()
		return true
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k, _ := json.Marshal(killed_{string(dir), w.link()})
	child := exec.Command(self)
	child.Env = append(os.Environ(), killEnv+"="+string(k))
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var token string
	select {
	case token = <-reached:
	case <-time.After(20 * time.Second):
		t.Error("the process did not come as far as the token endpoint")
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	w.canaries.add(token)

	// The next process.
	w.idp.intercept(nil)
	w.deps.Store = dir
	w.restart()
	w.ask.does = nobody
	_, err = w.fetch()
	interaction(t, err)
	w.ask.does = nil
	w.must()
	if sent := w.idp.sent(); token == "" || len(sent) != 0 || len(reached) != 0 || w.aws.Count("reused:refresh_token") != 0 {
		t.Errorf("the token was sent again: %d, %d", len(sent), len(reached))
	}
}

package sso

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// The variables by which a test starts itself as another keyfob.
const (
	envOther = "KEYFOB_TEST_SSO_CACHE" // the token cache
	envURL   = "KEYFOB_TEST_SSO_URL"
)

// otherKeyfob is a daemon of its own, with a vault of its own, that shares
// nothing but the command line's cache: it gets credentials for some seconds.
func otherKeyfob() int {
	url := os.Getenv(envURL)
	w := &world{url: url}
	l := w.link("corp", dev, "ReadOnly")
	src, err := New(l, Deps{Store: &vault{}, Sessions: NewSessions(), CacheDir: os.Getenv(envOther), ShareCache: func() bool { return true }})
	for end := time.Now().Add(3 * time.Second); err == nil && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, err = src.Fetch(ctx, cred.Input{Profile: "other", Ask: &person{does: nobody, w: &world{vault: &vault{}}}})
		cancel()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// TestProcessesShareTheCache: two processes refresh tokens that last some
// seconds, and the command line reads the file all the time as it does,
// without any lock. No token is sent twice, nobody is asked, and every look
// finds a whole file of the right mode.
func TestProcessesShareTheCache(t *testing.T) {
	spec := people()
	spec.TokenSeconds = 7 // of use while five seconds are left
	w := newWorld(t, spec)
	w.deps.CacheDir = filepath.Join(t.TempDir(), ".aws", "sso", "cache")
	w.deps.ShareCache = func() bool { return true }
	w.ok(w.link("corp", dev, "ReadOnly"))
	path := w.sessionPath("corp")
	m := cached(t, path)
	m["somethingNew"] = json.Number("12345678901234567890")
	b, _ := json.Marshal(m)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.aws.ResetCalls()

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var processes, reader sync.WaitGroup
	over := make(chan struct{})
	for range 2 {
		processes.Go(func() {
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), envOther+"="+w.deps.CacheDir, envURL+"="+w.url)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	looks := 0
	reader.Go(func() {
		for ; ; looks++ {
			select {
			case <-over:
				return
			default:
			}
			b, err := os.ReadFile(path)
			var m map[string]any
			if err == nil {
				err = json.Unmarshal(b, &m)
			}
			if err != nil || m["accessToken"] == nil || m["expiresAt"] == nil || m["refreshToken"] == nil {
				t.Errorf("the command line reads %d bytes: %v", len(b), err)
				return
			}
			if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	processes.Wait()
	close(over)
	reader.Wait()
	n := w.aws.Count("CreateToken")
	if n < 2 || n > 12 {
		t.Errorf("%d refreshes in three seconds", n)
	}
	w.count("CreateToken", n, "reused:refresh_token", 0, "Authorize", 0)
	if b, _ = os.ReadFile(path); !bytes.Contains(b, []byte("12345678901234567890")) {
		t.Error("an unknown member is gone or changed")
	}
	if files, _ := os.ReadDir(w.deps.CacheDir); len(files) != 2 {
		t.Errorf("left behind: %v", files)
	}
	t.Logf("%d refreshes, %d looks", n, looks)
}

// botocoreProgram has botocore's own token provider (what `aws --profile`
// uses) read the cache, and refresh a token that has ended.
const botocoreProgram = `
import datetime, json, os, sys
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.tokens import SSOTokenProvider

def provider():
    s = botocore.session.Session(profile="dev")
    p = SSOTokenProvider(s)
    p.__dict__["_client"] = s.create_client("sso-oidc", region_name="eu-west-1", endpoint_url=sys.argv[1], config=Config(signature_version=UNSIGNED))
    return p

t = provider().load_token()
if t is None:
    sys.exit("it finds no token")
f = t.get_frozen_token()
print(json.dumps({"token": f.token, "expires": f.expiration.strftime("%Y-%m-%dT%H:%M:%SZ")}))
`

// TestBotocoreTakesTheCache: what a sign-in and a refresh of ours have
// written is what botocore's provider accepts, and refreshes when it has
// ended; what it writes then is ours again.
func TestBotocoreTakesTheCache(t *testing.T) {
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "from botocore.tokens import SSOTokenProvider").CombinedOutput(); err != nil {
		t.Skipf("there is no botocore: %s", lastLine(out))
	}
	home := t.TempDir()
	w := newWorld(t, people())
	w.deps.CacheDir = CacheDir(home)
	w.deps.ShareCache = func() bool { return true }
	config := fmt.Sprintf("[profile dev]\nregion = eu-west-1\nsso_session = corp\nsso_account_id = %s\nsso_role_name = ReadOnly\n[sso-session corp]\nsso_start_url = %s\nsso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n", dev, startURL)
	if err := os.MkdirAll(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".aws", "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	botocore := func() string {
		t.Helper()
		cmd := exec.Command(python, "-c", botocoreProgram, w.url)
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "NO_PROXY=*"}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		var f struct{ Token, Expires string }
		if err != nil || json.Unmarshal(out, &f) != nil {
			t.Fatalf("%v: %s", err, lastLine(errs.Bytes()))
		}
		if m := cached(t, w.sessionPath("corp")); m["accessToken"] != f.Token || m["expiresAt"] != f.Expires {
			t.Errorf("botocore has a token until %s, the file one until %v", f.Expires, m["expiresAt"])
		}
		return f.Token
	}
	l := w.link("corp", dev, "ReadOnly")
	w.ok(l)
	if botocore() != w.record(l).access.Reveal() {
		t.Error("after a sign-in botocore has another token")
	}
	w.count("CreateToken", 1)
	for range 2 { // by turns, each with what the other one has written
		w.aws.ExpireSSOTokens()
		w.ok(l)
		w.count("CreateToken", 1)
		if botocore() != w.record(l).access.Reveal() {
			t.Error("after a refresh botocore has another token")
		}
		path := w.sessionPath("corp")
		m := cached(t, path)
		m["expiresAt"] = "2024-01-02T03:04:05Z"
		b, _ := json.Marshal(m)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		w.vault.remember(botocore())
		w.count("CreateToken", 1)
	}
	w.count("reused:refresh_token", 0)
	w.asks(cred.AskBrowser)
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

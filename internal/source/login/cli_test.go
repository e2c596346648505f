package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/logincreds"
	"github.com/aws/aws-sdk-go-v2/service/signin"

	"keyfob/internal/cred"
)

const envOther = "KEYFOB_TEST_OTHER_PROGRAM"

func TestCLICacheIsUsedAndWrittenBack(t *testing.T) {
	w := newWorld(t)
	path := w.cliLogin(nil, 14*time.Minute)
	before := w.readFile(path)
	s := w.source(alice)
	c := w.mustFetch(s, nil)
	if w.calls() != 0 || w.ask.kinds() != "" || time.Until(c.Expires) < 13*time.Minute {
		t.Errorf("%d calls, expires %v", w.calls(), c.Expires)
	}
	c2 := w.mustFetch(s, nil)
	after := w.readFile(path)
	access := after["accessToken"].(map[string]any)
	if w.calls() != 1 || c2.AccessKeyID == c.AccessKeyID || access["accessKeyId"] != c2.AccessKeyID || access["sessionToken"] != c2.SessionToken.Reveal() || access["accountId"] != "111122223333" {
		t.Errorf("%d calls, %v", w.calls(), access["accessKeyId"])
	}
	if ends, err := parseTime(access["expiresAt"].(string)); err != nil || !strings.HasSuffix(access["expiresAt"].(string), "Z") || time.Until(ends) < 14*time.Minute {
		t.Errorf("expiresAt %v", access["expiresAt"])
	}
	if after["refreshToken"] == before["refreshToken"] || !reflect.DeepEqual(access["strange"], before["accessToken"].(map[string]any)["strange"]) {
		t.Error("the refresh token is the old one, or a member is lost")
	}
	delete(before, "accessToken")
	delete(before, "refreshToken")
	delete(after, "accessToken")
	delete(after, "refreshToken")
	if !reflect.DeepEqual(before, after) {
		t.Errorf("before %v\nafter %v", before, after)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 && filepath.Separator == '/' {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if w.store.has(recordName(alice)) {
		t.Error("the CLI's session is in our vault")
	}
	files, _ := os.ReadDir(w.deps.CacheDir)
	if len(files) != 2 {
		t.Errorf("files are left behind: %v", files)
	}
	// After a restart the file is all there is, and enough.
	w.restart()
	if again := w.mustFetch(w.source(alice), nil); again.AccessKeyID != c2.AccessKeyID {
		t.Error("it is refreshed without need")
	}
}

// AWS's own SDK goes on with what we wrote, and we with what it wrote (in
// place, not atomically).
func TestTheSDKSharesTheFile(t *testing.T) {
	w := newWorld(t)
	path := w.cliLogin(nil, time.Minute)
	age := func() {
		m := w.readFile(path)
		m["accessToken"].(map[string]any)["expiresAt"] = time.Now().Add(-time.Minute).UTC().Format(cliTime)
		w.writeFile(path, m)
	}
	s := w.source(alice)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	sdk := signin.New(signin.Options{Region: "eu-west-1", BaseEndpoint: aws.String(w.url), HTTPClient: &http.Client{Transport: tr}})
	seen := map[string]bool{}
	for range 3 {
		c := w.mustFetch(s, nil)
		age()
		d, err := logincreds.New(sdk, path).Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		age()
		if seen[c.AccessKeyID] || seen[d.AccessKeyID] {
			t.Error("the same credentials again")
		}
		seen[c.AccessKeyID], seen[d.AccessKeyID] = true, true
	}
	if w.calls() != 6 || w.ask.kinds() != "" {
		t.Errorf("%d calls, asked %s", w.calls(), w.ask.kinds())
	}
}

func TestADayOnTheCLIsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		w.cliLogin(nil, time.Minute)
		s := w.source(alice)
		c := w.mustFetch(s, nil)
		for end := time.Now().Add(12*time.Hour - 20*time.Minute); time.Now().Before(end); {
			time.Sleep(time.Until(c.Expires) / 2)
			c = w.mustFetch(s, nil)
		}
		time.Sleep(time.Hour)
		_, err := w.fetch(s, nil)
		needsPerson(t, err, alice, "has ended")
		calls := w.calls()
		w.restart()
		_, err = w.fetch(w.source(alice), nil)
		needsPerson(t, err, alice, "has ended")
		if w.calls() != calls {
			t.Error("a refused token was sent again")
		}
		// `aws login` makes a new one.
		w.cliLogin(nil, 14*time.Minute)
		w.mustFetch(w.source(alice), nil)
	})
}

func TestBrokenFiles(t *testing.T) {
	w := newWorld(t)
	path := w.cliLogin(nil, time.Minute)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	with := func(member string, v any) []byte {
		var m map[string]any
		_ = json.Unmarshal(whole, &m)
		m[member] = v
		if v == nil {
			delete(m, member)
		}
		b, _ := json.Marshal(m)
		return b
	}
	for name, x := range map[string]struct {
		data []byte
		why  string
	}{
		"empty": {nil, "not whole"}, "half": {whole[:len(whole)/2], "not whole"}, "null": {[]byte("null"), "not whole"}, "list": {[]byte("[]"), "not whole"},
		"no key": {with("dpopKey", nil), "dpopKey"}, "bad PEM": {with("dpopKey", "CANARY"), "dpopKey"}, "half a PEM": {with("dpopKey", "-----BEGIN EC PRIVATE KEY-----\nQ0FO"), "dpopKey"},
		"garbage in PEM":   {with("dpopKey", "-----BEGIN EC PRIVATE KEY-----\nQ0FO\n-----END EC PRIVATE KEY-----\n"), "dpopKey"},
		"no refresh token": {with("refreshToken", nil), "refreshToken"}, "no client": {with("clientId", ""), "clientId"}, "a number": {with("refreshToken", 7), "wrong type"},
		"access token is text": {with("accessToken", "CANARY"), "wrong type"}, "too long": {bytes.Repeat([]byte(" "), maxCLIFile+1), "longer"},
	} {
		w.writeFile(path, x.data)
		_, err := w.fetch(w.source(alice), nil)
		e := needsPerson(t, err, path, x.why)
		if strings.Contains(e.Error(), "CANARY") || strings.Contains(e.Error(), "Q0FO") || w.calls() != 0 {
			t.Errorf("%s: %v", name, err)
		}
		if b, _ := os.ReadFile(path); !bytes.Equal(b, x.data) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	// A sign-in of our own gets past it.
	w.ask.answer = w.ask.signsIn
	w.mustFetch(w.source(alice), nil)
	if err := os.Remove(path); err != nil || os.Mkdir(path, 0o700) != nil {
		t.Fatal(err)
	}
	w.restart()
	if err := w.logout(); err != nil {
		t.Fatal(err)
	}
	w.ask.answer = nil
	_, err = w.fetch(w.source(alice), nil)
	needsPerson(t, err, "regular file")
}

// Half a file that is whole a moment later is no error.
func TestAFileThatIsBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		path := w.cliLogin(nil, 14*time.Minute)
		whole, _ := os.ReadFile(path)
		w.writeFile(path, whole[:100])
		var wg sync.WaitGroup
		wg.Go(func() { time.Sleep(100 * time.Millisecond); w.writeFile(path, whole) })
		w.mustFetch(w.source(alice), nil)
		wg.Wait()
	})
}

func TestIncompleteAccessTokenIsRefreshed(t *testing.T) {
	w := newWorld(t)
	path := w.cliLogin(nil, time.Hour)
	for _, broken := range []any{nil, map[string]any{"accessKeyId": "AKIDCANARY"}, map[string]any{"accessKeyId": "x", "secretAccessKey": "y", "sessionToken": "z", "expiresAt": "soon"}} {
		m := w.readFile(path)
		m["accessToken"] = broken
		w.writeFile(path, m)
		w.mustFetch(w.source(alice), nil)
		if w.readFile(path)["accessToken"].(map[string]any)["expiresAt"] == nil {
			t.Error("the file is not mended")
		}
	}
	if w.calls() != 3 {
		t.Errorf("%d calls", w.calls())
	}
	m := w.readFile(path)
	m["accessToken"].(map[string]any)["expiresAt"] = time.Now().Add(14 * time.Minute).UTC().Format("2006-01-02T15:04:05UTC")
	w.writeFile(path, m)
	if w.mustFetch(w.source(alice), nil); w.calls() != 3 {
		t.Error("an older form of time is not read")
	}
}

// between answers a token request only after do has run: what another
// program does between our request and its answer.
func (w *world) between(do func()) *Source {
	l := w.link(alice)
	proxy := &http.Transport{DisableKeepAlives: true}
	var once sync.Once
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		out, _ := http.NewRequest(r.Method, w.url+r.URL.Path, bytes.NewReader(body))
		out.Header = r.Header.Clone()
		out.Host = r.Host // proofs are for the address that was called
		resp, err := proxy.RoundTrip(out)
		if err != nil {
			rw.WriteHeader(502)
			return
		}
		defer resp.Body.Close() //nolint:errcheck // read to its end
		b, _ := io.ReadAll(resp.Body)
		once.Do(do)
		for k, v := range resp.Header {
			rw.Header()[k] = v
		}
		rw.WriteHeader(resp.StatusCode)
		_, _ = rw.Write(b)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	w.t.Cleanup(func() { _ = srv.Close(); <-done; w.deps.Pool.CloseIdle() })
	l.Client.EndpointURL["signin"] = "http://" + ln.Addr().String()
	s, err := New(l, w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.(*Source)
}

func TestWhatOthersWriteMeanwhileStays(t *testing.T) {
	t.Run("another sign-in", func(t *testing.T) {
		w := newWorld(t)
		path := w.cliLogin(nil, time.Minute)
		var theirs map[string]any
		s := w.between(func() { w.cliLogin(nil, 14*time.Minute); theirs = w.readFile(path) })
		c := w.mustFetch(s, nil)
		if now := w.readFile(path); !reflect.DeepEqual(now, theirs) {
			t.Errorf("our refresh replaced another sign-in: %v", now)
		}
		if d := w.mustFetch(s, nil); d.AccessKeyID == c.AccessKeyID || d.AccessKeyID != theirs["accessToken"].(map[string]any)["accessKeyId"] {
			t.Error("the newer sign-in is not used")
		}
	})
	t.Run("a sign-out", func(t *testing.T) {
		w := newWorld(t)
		path := w.cliLogin(nil, time.Minute)
		_, err := w.fetch(w.between(func() { _ = os.Remove(path) }), nil)
		needsPerson(t, err, "signed out")
		if _, err := os.Stat(path); err == nil {
			t.Error("the session is back")
		}
	})
	t.Run("a member", func(t *testing.T) {
		w := newWorld(t)
		path := w.cliLogin(nil, time.Minute)
		w.mustFetch(w.between(func() { m := w.readFile(path); m["later"] = "x"; w.writeFile(path, m) }), nil)
		if m := w.readFile(path); m["later"] != "x" {
			t.Error("a member is lost")
		}
	})
	t.Run("a refusal", func(t *testing.T) { // somebody has signed in anew since we read
		w := newWorld(t)
		path := w.cliLogin(nil, time.Minute)
		w.aws.EndLogins()
		s := w.between(func() { w.cliLogin(nil, time.Minute) })
		w.mustFetch(s, nil)
		if w.calls() != 2 || w.ask.kinds() != "" {
			t.Errorf("%d calls, asked %s", w.calls(), w.ask.kinds())
		}
		w.readFile(path)
	})
}

func TestAFileThatCannotBeWritten(t *testing.T) {
	if os.Getuid() == 0 || filepath.Separator != '/' {
		// root writes everywhere: a folder in the lock's place does the same
		w := newWorld(t)
		path := w.cliLogin(nil, time.Minute)
		if err := os.Mkdir(path+".lock", 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := w.fetch(w.source(alice), nil)
		if !errors.Is(err, cred.ErrUnavailable) || w.calls() != 0 || cred.HintOf(err) == "" {
			t.Fatalf("%v, %d calls", err, w.calls())
		}
		line(t, err.Error())
		return
	}
	w := newWorld(t)
	w.cliLogin(nil, time.Minute)
	if err := os.Chmod(w.deps.CacheDir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(w.deps.CacheDir, 0o700) }()
	_, err := w.fetch(w.source(alice), nil)
	if !errors.Is(err, cred.ErrUnavailable) || w.calls() != 0 || cred.HintOf(err) == "" {
		t.Fatalf("%v, %d calls", err, w.calls())
	}
	line(t, err.Error())
}

func TestSymbolicLinksStay(t *testing.T) {
	w := newWorld(t)
	path := w.cliLogin(nil, time.Minute)
	real := filepath.Join(t.TempDir(), "real.json")
	if err := os.Rename(path, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, path); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	c := w.mustFetch(w.source(alice), nil)
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced")
	}
	if w.readFile(real)["accessToken"].(map[string]any)["accessKeyId"] != c.AccessKeyID {
		t.Error("the file behind the link is the old one")
	}
}

// TestOurSignInGoesFirst: and the CLI's follows where ours has ended.
func TestOurSignInGoesFirst(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	s := w.source(alice)
	c := w.mustFetch(s, nil)
	w.aws.EndLogins()
	w.cliLogin(nil, 14*time.Minute)
	w.restart()
	if d := w.mustFetch(w.source(alice), nil); d.AccessKeyID != c.AccessKeyID {
		t.Error("ours is not used")
	}
	d := w.mustFetch(s, nil) // ours is refused
	if d.AccessKeyID == c.AccessKeyID || w.ask.kinds() != "browser" {
		t.Errorf("asked %s", w.ask.kinds())
	}
}

func TestCacheDir(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == name {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	home := filepath.FromSlash("/home/x")
	for _, x := range []struct {
		env  func(string) string
		want string
	}{
		{env(), "/home/x/.aws/login/cache"}, {env(envCacheDir, "/c"), "/c"}, {env(envCacheDir, "~/c"), "/home/x/c"}, {env(envCacheDir, "~"), "/home/x"},
		{env(envCacheDir, "$A/${B}/c", "A", "/a"), "/a/${B}/c"},
	} {
		if got := CacheDir(x.env, home); got != filepath.FromSlash(x.want) && got != x.want {
			t.Errorf("%s, want %s", got, x.want)
		}
	}
}

// TestAnotherProgramRefreshesToo: a process that behaves as botocore does
// (it reads, refreshes and replaces the file without any lock) and many of our
// own links work on one file. Nobody ever loses the session.
func TestAnotherProgramRefreshesToo(t *testing.T) {
	w := newWorld(t)
	path := w.cliLogin(nil, time.Minute)
	const rounds = 40
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envOther+"="+path, "OTHER_URL="+w.url, "OTHER_ROUNDS="+strconv.Itoa(rounds))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 { // two daemons: they share the file alone
		deps := w.deps
		deps.Sessions = NewSessions()
		wg.Go(func() {
			s, err := New(w.link(alice), deps)
			if err != nil {
				t.Error(err)
				return
			}
			for range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if c, err := s.Fetch(ctx, w.input(nil)); err != nil {
					t.Error(err)
				} else if _, ok := w.aws.Session(c.AccessKeyID); !ok {
					t.Error("credentials of nobody")
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the other program: %v\n%s", err, out.String())
	}
	if w.ask.kinds() != "" {
		t.Errorf("asked %s", w.ask.kinds())
	}
	// What is left in the file is good.
	m := w.readFile(path)
	if n := m["newMember"].(map[string]any)["n"]; fmt.Sprint(n) != "12345678901234567890" || m["idToken"] != "x.y.z" {
		t.Errorf("a member is lost: %v", m["newMember"])
	}
	w.mustFetch(w.source(alice), nil)
	w.mustFetch(w.source(alice), nil)
	t.Logf("%d calls, %d of them with a token that was sent before", w.calls(), w.aws.Count("again:refresh_token"))
}

// Two daemons that find old credentials make one call: who waits for the lock
// finds what its holder wrote.
func TestTheLockMakesOneRefresh(t *testing.T) {
	w := newWorld(t)
	w.cliLogin(nil, time.Minute)
	w.aws.SetLatency("CreateOAuth2Token", 50*time.Millisecond)
	var wg sync.WaitGroup
	for range 5 {
		deps := w.deps
		deps.Sessions = NewSessions()
		wg.Go(func() {
			s, err := New(w.link(alice), deps)
			if err == nil {
				_, err = s.Fetch(t.Context(), w.input(nil))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if w.calls() != 1 {
		t.Errorf("%d calls", w.calls())
	}
}

// otherProgram is botocore's LoginCredentialFetcher.refresh_credentials in
// short, over and over.
func otherProgram() int {
	path, base := os.Getenv(envOther), os.Getenv("OTHER_URL")
	rounds, _ := strconv.Atoi(os.Getenv("OTHER_ROUNDS"))
	for i := range rounds {
		if err := refreshAsBotocore(path, base); err != nil {
			fmt.Printf("round %d: %v\n", i, err)
			return 1
		}
	}
	return 0
}

func refreshAsBotocore(path, base string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var token map[string]any
	if err := d.Decode(&token); err != nil {
		return fmt.Errorf("half a file: %w", err)
	}
	key, err := parseKey(token["dpopKey"].(string))
	if err != nil {
		return err
	}
	u, err := url.Parse(base + "/v1/token")
	if err != nil {
		return err
	}
	p, err := proof(key, u, time.Now())
	if err != nil {
		return err
	}
	body, _ := json.Marshal(map[string]any{"clientId": token["clientId"], "grantType": grantRefresh, "refreshToken": token["refreshToken"]})
	req, _ := http.NewRequest("POST", u.String(), bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("DPoP", p)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	var out struct {
		AccessToken  map[string]any `json:"accessToken"`
		RefreshToken string         `json:"refreshToken"`
		Error        string         `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("HTTP %d %s: %w", resp.StatusCode, out.Error, err)
	}
	access := token["accessToken"].(map[string]any)
	for k, v := range out.AccessToken {
		access[k] = v
	}
	access["expiresAt"] = time.Now().Add(15 * time.Minute).UTC().Format(cliTime)
	token["refreshToken"] = out.RefreshToken
	data, _ = json.Marshal(token)
	f, err := os.CreateTemp(filepath.Dir(path), "*.tmp")
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

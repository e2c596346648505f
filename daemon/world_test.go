//go:build !windows

package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/control"
)

// bin is where the programs are: this test's own as keyfobd, and the keyring
// helper.
var bin string

// goroutinesVar names the file to which a test's keyfobd writes how many
// goroutines it has, and which, at SIGUSR1.
const goroutinesVar = "TEST_GOROUTINES"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "keyfobd" {
		if act := os.Getenv(actVar); act != "" {
			os.Exit(actExec(strings.Fields(act)[1:]))
		}
		tellGoroutines(os.Getenv(goroutinesVar))
		os.Exit(Main(os.Args[1:], "0.0.0-test", os.Stdout, os.Stderr))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "keyfob-daemon-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "keyfob/cmd/keyfob-keyring")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot build the helper:", err)
			return 1
		}
		if err := copySelf(filepath.Join(dir, "keyfobd")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		bin = dir
		return m.Run()
	}())
}

// actVar makes the program act as keyfob exec up to the start of its program:
// "exec SOCKET STS DIR".
const actVar = "TEST_ACT"

func actExec(arg []string) int {
	fail := func(err error) int {
		fmt.Println(err)
		return 1
	}
	ctx := context.Background()
	c, err := control.Dial(ctx, arg[0])
	if err != nil {
		return fail(err)
	}
	if err := c.Call(ctx, control.MethodGrantAdd, control.GrantParams{Context: control.Context{Profile: "app", Named: true,
		Env: map[string]string{"AWS_ENDPOINT_URL": arg[1]}}, ForExec: true, Profiles: []string{"app"}}, nil, nil); err != nil {
		return fail(err)
	}
	dir := filepath.Join(arg[2], "run-1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	if ok, err := lock.TryLock(); err != nil || !ok {
		return fail(fmt.Errorf("cannot lock: %v", err))
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
	return 0
}

func copySelf(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o700)
}

func tellGoroutines(path string) {
	if path == "" {
		return
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			var b bytes.Buffer
			fmt.Fprintln(&b, runtime.NumGoroutine())
			_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
			_ = os.WriteFile(path+".new", b.Bytes(), 0o600)
			_ = os.Rename(path+".new", path)
		}
	}()
}

// world is one person's machine: a home, something that answers as STS, and
// one keyfobd.
type world struct {
	t    testing.TB
	home string
	sts  *fakeSTS
	env  []string
	pid  int
	done chan struct{} // closed when keyfobd has ended
	log  *syncBuffer
	code int
}

// newWorld makes a home with the keys of base and the roles app, two and
// three on top of them.
func newWorld(t testing.TB) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "kf") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, home: dir, sts: newSTS(t)}
	w.write("passphrase", "CANARY-passphrase")
	w.write(".aws/credentials", "[base]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = CANARY-long-lived-secret\n")
	text := "[profile base]\nregion = eu-central-1\n"
	for _, name := range []string{"app", "two", "three"} {
		text += fmt.Sprintf("[profile %s]\nregion = eu-west-1\nsource_profile = base\nrole_arn = arn:aws:iam::222222222222:role/%s\n", name, name)
	}
	w.write(".aws/config", text)
	w.env = []string{
		"HOME=" + w.home, "PATH=" + os.Getenv("PATH"),
		"XDG_CONFIG_HOME=" + w.path("config"), "XDG_DATA_HOME=" + w.path("share"), "XDG_RUNTIME_DIR=",
		"KEYFOB_DATA_DIR=" + w.path("data"), "KEYFOB_SOCKET=" + w.path("s"),
		"KEYFOB_KEYSTORE=passphrase", "KEYFOB_PASSPHRASE_FILE=" + w.path("passphrase"),
		"DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null", "AWS_ENDPOINT_URL=" + w.sts.URL,
		goroutinesVar + "=" + w.path("goroutines"),
	}
	return w
}

func (w *world) path(p string) string { return filepath.Join(w.home, p) }

func (w *world) write(p, text string) {
	w.t.Helper()
	p = w.path(p)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(p+".new", []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(p+".new", p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(p string) string {
	b, _ := os.ReadFile(w.path(p))
	return string(b)
}

// config writes config.toml.
func (w *world) config(text string) { w.write("config/keyfob/config.toml", text) }

// start runs keyfobd until the test ends, and waits until it serves.
func (w *world) start(args ...string) {
	w.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "keyfobd"), append([]string{"run"}, args...)...)
	cmd.Env, cmd.Dir = w.env, w.home
	w.log = &syncBuffer{}
	cmd.Stdout, cmd.Stderr = w.log, w.log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.pid, w.done = cmd.Process.Pid, make(chan struct{})
	done := w.done
	go func() {
		_ = cmd.Wait()
		w.code = cmd.ProcessState.ExitCode()
		close(done)
	}()
	w.t.Cleanup(func() { w.end(cmd) })
	w.eventually("keyfobd serves", func() bool {
		select {
		case <-done:
			w.t.Fatalf("keyfobd ended: %s", w.log)
		default:
		}
		return w.try(control.MethodVersion, nil, nil) == nil
	})
}

func (w *world) end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.done:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		<-w.done
		w.t.Errorf("keyfobd does not end: %s", w.log)
	}
	if strings.Contains(w.log.String(), "CANARY") {
		w.t.Error("the log has a secret")
	}
	if w.t.Failed() {
		lines := strings.Split(w.log.String(), "\n")
		w.t.Logf("the log:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// once runs keyfobd to its end.
func (w *world) once(args ...string) (out string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "keyfobd"), args...)
	cmd.Env, cmd.Dir = w.env, w.home
	b, _ := cmd.CombinedOutput()
	return string(b), cmd.ProcessState.ExitCode()
}

func (w *world) signal(s syscall.Signal) {
	w.t.Helper()
	if err := syscall.Kill(w.pid, s); err != nil {
		w.t.Fatal(err)
	}
}

// try makes one call over a connection of its own.
func (w *world) try(method string, params, result any) error {
	return w.asking(method, params, result, nil)
}

func (w *world) asking(method string, params, result any, onEvent func(control.Event) (*control.Answer, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, w.path("s"))
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, method, params, result, onEvent)
}

func (w *world) must(method string, params, result any) {
	w.t.Helper()
	if err := w.try(method, params, result); err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
}

// context is what a command of this home says of itself.
func (w *world) context(profile string) control.Context {
	return control.Context{Profile: profile, Named: true, Env: map[string]string{"AWS_ENDPOINT_URL": w.sts.URL}}
}

func (w *world) status() (s control.StatusResult) {
	w.t.Helper()
	w.must(control.MethodStatus, nil, &s)
	return s
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within 15 s", what)
		}
	}
}

// goroutines asks keyfobd how many it has.
func (w *world) goroutines() (n int, which string) {
	w.t.Helper()
	_ = os.Remove(w.path("goroutines"))
	w.signal(syscall.SIGUSR1)
	w.eventually("keyfobd counts its goroutines", func() bool {
		which = w.read("goroutines")
		_, err := fmt.Sscan(which, &n)
		return err == nil
	})
	return n, which
}

// kept is a client of a metadata endpoint on one connection.
type kept struct {
	t     testing.TB
	host  string
	conn  net.Conn
	r     *bufio.Reader
	token string
}

func dialIMDS(t testing.TB, addr string) *kept {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	k := newKept(t, conn)
	code, body, err := k.do("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 600")
	if err != nil || code != 200 {
		t.Fatalf("token: %d %v", code, err)
	}
	k.token = body
	return k
}

func newKept(t testing.TB, conn net.Conn) *kept {
	return &kept{t: t, host: conn.RemoteAddr().String(), conn: conn, r: bufio.NewReader(conn)}
}

func (k *kept) do(method, path, header string) (int, string, error) {
	_ = k.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(k.conn, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", method, path, k.host, header); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(k.r, &http.Request{Method: method})
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (k *kept) get(path string) (int, string) {
	k.t.Helper()
	code, body, err := k.do("GET", path, "X-aws-ec2-metadata-token: "+k.token)
	if err != nil {
		k.t.Fatalf("GET %s: %v", path, err)
	}
	return code, body
}

const credentialsPath = "/latest/meta-data/iam/security-credentials/"

// role is the name that the endpoint lists.
func (k *kept) role() string {
	k.t.Helper()
	code, body := k.get(credentialsPath)
	if code != 200 {
		return fmt.Sprint(code)
	}
	return body
}

// keyID waits for the credentials of a role and returns the id of their key.
func (k *kept) keyID(role string) string {
	k.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		code, body := k.get(credentialsPath + role)
		var doc struct{ AccessKeyId string }
		if code == 200 && json.Unmarshal([]byte(body), &doc) == nil && doc.AccessKeyId != "" {
			return doc.AccessKeyId
		}
		if code != 503 || time.Now().After(end) {
			return fmt.Sprint(code, " ", body)
		}
	}
}

// fakeSTS answers AssumeRole with keys whose id begins with the role's name.
type fakeSTS struct {
	*httptest.Server
	mu    sync.Mutex
	calls []url.Values
	held  chan struct{} // answers wait until it is closed, nil for not
}

// hold keeps answers back until the channel is closed.
func (s *fakeSTS) hold() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = make(chan struct{})
	return s.held
}

func newSTS(t testing.TB) *fakeSTS {
	s := &fakeSTS{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.calls = append(s.calls, r.PostForm)
		n, held := len(s.calls), s.held
		s.mu.Unlock()
		if held != nil {
			<-held
		}
		op, arn := r.PostForm.Get("Action"), r.PostForm.Get("RoleArn")
		name := arn[strings.LastIndexByte(arn, '/')+1:]
		if op == "GetCallerIdentity" {
			fmt.Fprint(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
				`<Arn>arn:aws:iam::111111111111:user/alice</Arn><UserId>AIDAEXAMPLE</UserId><Account>111111111111</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
			return
		}
		fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials>`+
			`<AccessKeyId>ASIA%[2]s%04[3]d</AccessKeyId><SecretAccessKey>CANARY-secret</SecretAccessKey><SessionToken>CANARY-token</SessionToken>`+
			`<Expiration>%[4]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			op, strings.ToUpper(name), n, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(s.Close)
	return s
}

// asked are the calls for a role so far.
func (s *fakeSTS) asked(role string) []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.calls), func(v url.Values) bool { return !strings.HasSuffix(v.Get("RoleArn"), "/"+role) })
}

// syncBuffer is what a process writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// container asks a container endpoint without a token and returns the status.
func (k *kept) container() int {
	conn, err := net.Dial("tcp", k.host)
	if err != nil {
		return 0
	}
	defer conn.Close()
	k.conn, k.r = conn, bufio.NewReader(conn)
	code, _, err := k.do("GET", "/v1/credentials/app", "Accept: */*")
	if err != nil {
		return 0
	}
	return code
}

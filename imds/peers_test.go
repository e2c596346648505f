package imds

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// Each test here is a way in which a server of this kind has failed before.

// TestOtherUsers: a server that gives credentials to any process of any
// user. Ours asks the rules about every request, before its path is looked
// at.
func TestOtherUsers(t *testing.T) {
	t.Parallel()
	rules, err := access.NewRules(access.RulesConfig{Owner: "1000"})
	if err != nil {
		t.Fatal(err)
	}
	log, lines := newLog(t)
	for _, c := range []struct {
		name     string
		identify func(net.Conn) (peer.Caller, error)
		open     bool
		status   int
	}{
		{"owner", someone("1000"), false, 200},
		{"other user", someone("1001"), false, 403},
		{"root", someone("0"), false, 403},
		{"nobody", nobody, false, 403},
		{"no user", someone(""), false, 403},
		{"nobody, let in but with no rule for it", nobody, true, 403},
	} {
		address := metadataServer(t, func(m *MetadataConfig) {
			m.identify, m.Check, m.AllowUnidentified, m.Log = c.identify, rules.Check, c.open, log
		})
		for _, r := range []string{
			request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 60"),
			request("GET", "/", address), request("GET", credentialsPath, address), request("POST", "/nope", address),
		} {
			a := raw(t, address, strings.SplitN(r, " ", 2)[0], r)
			if (a.status == 403) != (c.status == 403) {
				t.Errorf("%s: %q is %d", c.name, r, a.status)
			}
			noSecret(t, c.name, a.body)
		}
	}
	for _, reason := range []string{"only the daemon's own user is allowed", peer.ErrUnidentified.Error()} {
		if !strings.Contains(lines.String(), reason) {
			t.Errorf("the log does not say %q", reason)
		}
	}
}

// TestUnidentified: the broker judges callers that the endpoint lets in
// without a name; they come as nobody.
func TestUnidentified(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	var asked peer.Caller
	broker.get = func(_ context.Context, r cred.Request) (*cred.Snapshot, error) {
		asked = r.Caller
		return broker.warm.Load(), nil
	}
	// What came with the error is not believed.
	half := func(net.Conn) (peer.Caller, error) {
		return peer.Caller{UID: "1000", PID: 1}, peer.ErrUnidentified
	}
	address := metadataServer(t, func(c *MetadataConfig) { c.Broker, c.identify, c.AllowUnidentified = broker, half, true })
	if a := get(t, address, credentialsPath, withToken(newToken(t, address))); a.status != 200 || asked != (peer.Caller{}) {
		t.Errorf("%d for %+v", a.status, asked)
	}
}

// TestNoUser: a caller without a user is nobody, whatever the look-up says.
func TestNoUser(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, func(c *MetadataConfig) { c.identify = someone(""); c.IMDSv1 = true })
	if a := get(t, address, credentialsPath); a.status != 403 {
		t.Errorf("%+v", a)
	}
}

// TestRealPeer: who calls is asked of the kernel, once for a connection.
func TestRealPeer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux")
	}
	broker := newBroker()
	var asked []peer.Caller
	broker.get = func(_ context.Context, r cred.Request) (*cred.Snapshot, error) {
		asked = append(asked, r.Caller)
		return broker.warm.Load(), nil
	}
	resolver := peer.NewResolver()
	defer resolver.Close()
	var looked atomic.Int64
	address := metadataServer(t, func(c *MetadataConfig) {
		c.Broker = broker
		c.identify = func(n net.Conn) (peer.Caller, error) { looked.Add(1); return resolver.Of(n) }
	})
	token := newToken(t, address)
	looked.Store(0)
	c := dial(t, address)
	defer c.Close()
	for range 3 {
		if a := c.send(t, "GET", request("GET", credentialsPath, address, withToken(token))); a.status != 200 {
			t.Fatalf("%+v", a)
		}
	}
	if n := looked.Load(); n != 1 {
		t.Errorf("looked %d times at one connection", n)
	}
	for _, a := range asked {
		if a.UID != fmt.Sprint(os.Getuid()) || a.Via != "tcp" {
			t.Errorf("the caller was %+v", a)
		}
	}
}

// TestOtherUserProcess: a real process of another user gets nothing.
func TestOtherUserProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("needs root on Linux, to start a process of another user")
	}
	curl, err1 := exec.LookPath("curl")
	setpriv, err2 := exec.LookPath("setpriv")
	if err1 != nil || err2 != nil {
		t.Skip("needs curl and setpriv")
	}
	rules, err := access.NewRules(access.RulesConfig{Owner: "0"})
	if err != nil {
		t.Fatal(err)
	}
	address := metadataServer(t, func(c *MetadataConfig) { c.Check = rules.Check; c.IMDSv1 = true })
	url := "http://" + address + credentialsPath
	run := func(arg ...string) string {
		cmd := exec.Command(arg[0], arg[1:]...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v: %s", arg, err, out)
		}
		return string(out)
	}
	if out := run(curl, "-s", url); !strings.Contains(out, canarySecret) {
		t.Errorf("the owner got %s", out)
	}
	out := run(setpriv, "--reuid=65533", "--regid=65533", "--clear-groups", curl, "-s", url)
	if !strings.Contains(out, "403 - Forbidden") {
		t.Errorf("another user got %s", out)
	}
	noSecret(t, "another user's answer", out)
}

// TestNoStop: a root proxy that ends on an unauthenticated GET /stop, and
// requests that change the profile without any check.
func TestNoStop(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	token := newToken(t, address)
	for _, path := range []string{"/stop", "/profile", "/profile/prod", "/refresh", "/latest/stop", "/role/other"} {
		for method, status := range map[string]int{"GET": 401, "POST": 405, "PUT": 405, "DELETE": 405} {
			if a := raw(t, address, method, request(method, path, address)); a.status != status {
				t.Errorf("%s %s: %d", method, path, a.status)
			}
		}
		if a := get(t, address, path, withToken(token)); a.status != 404 {
			t.Errorf("%s with a token: %d", path, a.status)
		}
	}
	if a := get(t, address, credentialsPath, withToken(token)); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// TestFailedRefresh: a failed refresh that is served as an empty "Success".
// Ours serves what the broker still has, and never a document without keys
// as a success.
func TestFailedRefresh(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	address := metadataServer(t, func(c *MetadataConfig) { c.Broker = broker })
	token := newToken(t, address)
	c := dial(t, address)
	defer c.Close()
	good := request("GET", credentialsPath, address, withToken(token))
	if a := c.send(t, "GET", good); a.status != 200 {
		t.Fatal(a.status)
	}
	broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) { return nil, cred.ErrUnavailable }
	if a := c.send(t, "GET", good); a.status != 503 || strings.Contains(a.body, "Success") {
		t.Errorf("after a failure: %+v", a)
	}
	broker.get = nil
	if a := c.send(t, "GET", good); a.status != 200 || !strings.Contains(a.body, canarySecret) {
		t.Errorf("after the failure has passed: %+v", a)
	}
}

// TestRefreshRace: readers while the credentials change, each answer whole
// (with -race this is the data race of a server that writes its struct).
func TestRefreshRace(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	address := metadataServer(t, func(c *MetadataConfig) { c.Broker = broker })
	token := newToken(t, address)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s := *snapshot(time.Hour)
			s.AccessKeyID = fmt.Sprintf("ASIA%016d", i)
			s.SecretAccessKey = cred.NewSecret(fmt.Sprintf("secret%016d", i))
			broker.warm.Store(&s)
		}
	})
	var readers sync.WaitGroup
	for range 4 {
		c := dial(t, address)
		defer c.Close()
		readers.Go(func() {
			for n := range 100 {
				path := credentialsPath
				if n%2 == 0 {
					path = strings.Replace(path, "security-credentials", "security-credentials-extended", 1)
				}
				if _, err := fmt.Fprint(c, request("GET", path, address, withToken(token))); err != nil {
					t.Error(err)
					return
				}
				a, err := c.read("GET")
				var d document
				if err == nil {
					err = json.Unmarshal([]byte(a.body), &d)
				}
				if err != nil || d.AccessKeyId != canaryOr(d) {
					t.Errorf("%v: %s with %s", err, d.AccessKeyId, d.SecretAccessKey)
					return
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	wg.Wait()
}

// canaryOr is the key id that belongs to the document's secret.
func canaryOr(d document) string {
	if d.SecretAccessKey == canarySecret {
		return "ASIAEXAMPLEEXAMPLE12"
	}
	return "ASIA" + strings.TrimPrefix(d.SecretAccessKey, "secret")
}

// TestForget: nothing that was rendered outlives the broker's refusal or a
// lock.
func TestForget(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	s := NewMetadata(MetadataConfig{Listener: l, Profile: "dev", Facts: testFacts})
	m := &metadata{Server: s}
	m.profiles.Store(&map[string]*served{})
	s.forget = m.forget
	kept := m.of("dev")
	kept.plain.Store(&rendered{})
	kept.extended.Store(&rendered{})
	s.Forget()
	if kept.plain.Load() != nil || kept.extended.Load() != nil {
		t.Error("a rendered body is kept")
	}
}

// TestUnknownPathsLogged: each unknown path once, at info, with the program
// that asked; never so many that the log grows without end.
func TestUnknownPathsLogged(t *testing.T) {
	t.Parallel()
	log, lines := newLog(t)
	address := metadataServer(t, func(c *MetadataConfig) { c.Log = log; c.IMDSv1 = true })
	c := dial(t, address)
	defer c.Close()
	for range 3 {
		c.send(t, "GET", request("GET", "/latest/meta-data/public-keys/?secret=canary", address))
	}
	for i := range 2 * maxUnknown {
		c.send(t, "GET", request("GET", fmt.Sprintf("/latest/meta-data/x%d", i), address))
	}
	c.send(t, "GET", request("GET", "/"+strings.Repeat("long", 1000), address))
	text := lines.String()
	if n := strings.Count(text, "/latest/meta-data/public-keys/"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if n := strings.Count(text, "unknown path asked for"); n != maxUnknown {
		t.Errorf("logged %d unknown paths", n)
	}
	noSecret(t, "the log", text)
	var line struct {
		Level, Path, Endpoint, Profile string
		UID                            string `json:"caller_uid"`
		Program                        string `json:"caller_program"`
	}
	if err := json.Unmarshal([]byte(strings.SplitN(text, "\n", 2)[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line.Level != "info" || line.Path != "/latest/meta-data/public-keys/" || line.Endpoint != "imds "+address || line.Profile != "dev" || line.UID != peer.Self() {
		t.Errorf("the line is %+v", line)
	}
	if self, err := os.Executable(); runtime.GOOS == "linux" && (err != nil || line.Program != self) {
		t.Errorf("the program is %q, want %q", line.Program, self)
	}
}

// TestUnknownPathsAgain: a list that was filled is begun anew after an hour,
// with another line that says so; one that was not is kept.
func TestUnknownPathsAgain(t *testing.T) {
	t.Parallel()
	log, lines := newLog(t)
	n := newNotices(log, &Server{profile: "dev"})
	now := time.Now()
	fill := func(from, to int) {
		for i := from; i < to; i++ {
			n.path(fmt.Sprintf("/x%d", i), "bobs", peer.Caller{}, now)
		}
	}
	logged := func() int { return strings.Count(lines.String(), "unknown path asked for") }
	fill(0, 10)
	now = now.Add(24 * time.Hour)
	fill(0, 10)
	if logged() != 10 || strings.Count(lines.String(), `"profile":"bobs"`) != 10 {
		t.Errorf("logged %d paths", logged())
	}
	fill(10, 100000)
	if logged() != maxUnknown || len(n.unknown) != maxUnknown || strings.Count(lines.String(), "too many unknown paths") != 1 {
		t.Errorf("logged %d paths, remembered %d", logged(), len(n.unknown))
	}
	now = now.Add(unknownEvery)
	fill(0, 100000)
	if logged() != 2*maxUnknown || len(n.unknown) != maxUnknown || strings.Count(lines.String(), "too many unknown paths") != 2 {
		t.Errorf("an hour later: logged %d paths, remembered %d", logged(), len(n.unknown))
	}
}

// TestRefusalsLogged: a kind of refusal once a minute.
func TestRefusalsLogged(t *testing.T) {
	t.Parallel()
	log, lines := newLog(t)
	n := newNotices(log, &Server{})
	now := time.Now()
	for range 100 {
		n.refused(forbidden("a"), peer.Caller{UID: "1"}, now)
		n.refused(forbidden("b"), peer.Caller{UID: "1"}, now)
	}
	n.refused(forbidden("a"), peer.Caller{UID: "2"}, now)
	n.refused(forbidden("a"), peer.Caller{UID: "1"}, now.Add(refusalEvery))
	if got := strings.Count(lines.String(), "request refused"); got != 4 {
		t.Errorf("logged %d lines", got)
	}
	for i := range 10 * maxRefusals {
		n.refused(forbidden(fmt.Sprint(i)), peer.Caller{}, now.Add(refusalEvery))
	}
	if len(n.refusals) > maxRefusals {
		t.Errorf("%d refusals are remembered", len(n.refusals))
	}
}

// TestWildcard: a listener on every address takes the address that the
// connection came to, and no other.
func TestWildcard(t *testing.T) {
	t.Parallel()
	l := listen(t, "0.0.0.0:0")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	metadataServer(t, func(c *MetadataConfig) { c.Listener = l })
	address := "127.0.0.1:" + port
	for host, status := range map[string]int{address: 200, "localhost": 200, "127.0.0.2:" + port: 403, "0.0.0.0:" + port: 403, "evil.example": 403} {
		a := raw(t, address, "PUT", request("PUT", "/latest/api/token", host, "X-aws-ec2-metadata-token-ttl-seconds: 60"))
		if a.status != status {
			t.Errorf("Host %s: %d", host, a.status)
		}
	}
}

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/fsnotify/fsnotify"

	"keyfob/internal/fakeaws"
)

// steps stands before the fake AWS and stops at the calls that a rotation
// makes.
type steps struct {
	next http.Handler

	mu   sync.Mutex // guards the rest
	seen []string
	at   func(n int, action string, answered bool) (lost bool) // n from 0
}

// rotationCalls are those of which a rotation consists.
var rotationCalls = []string{"GetCallerIdentity", "ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey", "GetAccessKeyLastUsed"}

// stop sets what happens before a call is judged, which may have it lost, and
// after it was; nil for nothing. It returns the calls that were made since the
// last time.
func (s *steps) stop(at func(n int, action string, answered bool) (lost bool)) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen, s.at = nil, at
	return seen
}

func (s *steps) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body))
	action := form.Get("Action")
	if !slices.Contains(rotationCalls, action) {
		s.next.ServeHTTP(w, r)
		return
	}
	s.mu.Lock()
	n, at := len(s.seen), s.at
	s.seen = append(s.seen, action)
	s.mu.Unlock()
	if at != nil && at(n, action, false) {
		return
	}
	// The caller may be dead by now; AWS acts all the same.
	s.next.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	if at != nil {
		_ = at(n, action, true)
	}
}

// rotating is a world with alice's pair in the vault, for base and twin.
type rotating struct {
	*world
	steps   *steps
	auditor *iam.Client // another user's, who may see alice's keys
}

func newRotating(t *testing.T) *rotating {
	w := newWorld(t)
	r := &rotating{w, &steps{next: w.aws.Handler()}, w.iam(w.aws.AddUser(fakeaws.UserSpec{Name: "auditor"}))}
	front := httptest.NewServer(r.steps)
	t.Cleanup(front.Close)
	w.url = front.URL
	w.env["AWS_ENDPOINT_URL"] = w.url
	w.addKeys("base")
	w.addKeys("twin")
	return r
}

// signs returns the long-lived key that the vault makes sessions with just
// now, which is one that AWS knows: nothing of before is used.
func (r *rotating) signs(profile string) string {
	r.t.Helper()
	r.must(nil, "logout", profile)
	d := r.credentials(profile)
	for _, c := range slices.Backward(r.aws.Calls("GetSessionToken")) {
		if c.Issued == d.AccessKeyId && strings.HasPrefix(c.AccessKey, "AKIA") {
			return c.AccessKey
		}
	}
	r.t.Fatalf("nobody made the session %s of %s", d.AccessKeyId, profile)
	return ""
}

type rotated struct {
	Keys []struct {
		Profile, Old, New, Skipped, Error string
		Also                              []string
		Resumed                           bool
	}
}

func (r *rotating) rotate(args ...string) (out rotated, res result) {
	r.t.Helper()
	res = r.run(nil, append([]string{"rotate", "--json"}, args...)...)
	if res.code == 0 {
		if err := json.Unmarshal([]byte(res.out), &out); err != nil || len(out.Keys) == 0 {
			r.t.Fatalf("rotate printed %q: %v", res.out, err)
		}
	}
	return out, res
}

// whole looks at what a finished rotation leaves: one key of the user's, which
// both profiles have, and nothing to do.
func (r *rotating) whole(id string) {
	r.t.Helper()
	for _, p := range []string{"base", "twin"} {
		if got := r.signs(p); got != id {
			r.t.Errorf("%s signs with %s, want %s", p, got, id)
		}
	}
	if keys := r.keysOfAlice(); !slices.Equal(keys, []string{id}) {
		r.t.Errorf("alice has the keys %q, want %s alone", keys, id)
	}
	if out := r.must(nil, "doctor", "--offline", "--json").out; strings.Contains(out, "rotation.unfinished") {
		r.t.Error("the doctor sees an unfinished rotation")
	}
}

// keysOfAlice are those that IAM lists, asked by an administrator.
func (r *rotating) keysOfAlice() (ids []string) {
	r.t.Helper()
	name := "alice"
	list, err := r.auditor.ListAccessKeys(r.t.Context(), &iam.ListAccessKeysInput{UserName: &name})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, k := range list.AccessKeyMetadata {
		ids = append(ids, *k.AccessKeyId+map[bool]string{true: "", false: " (inactive)"}[k.Status == "Active"])
	}
	return ids
}

// TestRotateNeverLocksOut asks for credentials while a rotation stands still
// before each of its calls and behind it: the vault has a pair that works, for
// each profile, whenever anybody looks.
func TestRotateNeverLocksOut(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	var looked int
	var by []string
	r.steps.stop(func(int, string, bool) bool {
		looked++
		for _, p := range []string{"base", "twin"} {
			if id := r.signs(p); len(by) == 0 || by[len(by)-1] != id {
				by = append(by, id)
			}
		}
		return false
	})
	out, res := r.rotate("base")
	if res.code != 0 {
		t.Fatalf("exit %d: %s", res.code, res.err)
	}
	calls := r.steps.stop(nil)
	if len(calls) < 7 || looked != 2*len(calls) || !slices.Contains(calls, "UpdateAccessKey") || calls[len(calls)-1] != "ListAccessKeys" {
		t.Errorf("%d looks at the calls %q", looked, calls)
	}
	if k := out.Keys[0]; !slices.Equal(by, []string{k.Old, k.New}) {
		t.Errorf("%+v, and sessions were made by %q", k, by)
	}
	r.whole(out.Keys[0].New)
}

// TestRotateKilledAtEachCall kills the daemon before a call arrives at AWS, and
// when AWS has done it and its answer is on its way, for every call of a
// rotation. After each kill the vault's pair works; the next rotation finishes
// the one before.
func TestRotateKilledAtEachCall(t *testing.T) {
	for name, answered := range map[string]bool{"on the way there": false, "on the way back": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t)
			calls := 0
			for n := 0; ; n++ {
				r.steps.stop(func(i int, _ string, done bool) bool {
					if i != n || done != answered {
						return false
					}
					r.killDaemon()
					return true
				})
				_, res := r.rotate("base")
				calls = len(r.steps.stop(nil))
				if res.code == 0 { // it has no call number n
					break
				}
				if res.code != 1 || !strings.HasPrefix(lastMessage(res.err), "keyfob: cannot rotate the keys: ") {
					t.Errorf("killed at call %d: exit %d, %q", n, res.code, res.err)
				}
				r.again(n)
			}
			if calls < 7 {
				t.Errorf("a rotation made %d calls", calls)
			}
		})
	}
}

// again is what follows a kill: credentials, then the same rotation once more.
func (r *rotating) again(n int) {
	r.t.Helper()
	for _, p := range []string{"base", "twin"} {
		if id := r.signs(p); id == "" {
			r.t.Fatalf("killed at %d: locked out of %s", n, p)
		}
	}
	out, res := r.rotate("base")
	if res.code != 0 {
		r.t.Fatalf("killed at %d, resumed: exit %d, %s", n, res.code, res.err)
	}
	id := r.signs("base")
	if k := out.Keys[0]; k.New != id {
		r.t.Errorf("killed at %d, resumed: %+v, but the vault has %s", n, k, id)
	}
	if keys := r.keysOfAlice(); !slices.Equal(keys, []string{id}) || r.signs("twin") != id {
		r.t.Errorf("killed at %d, resumed: alice has the keys %q, the vault %s", n, keys, id)
	}
}

func lastMessage(stderr string) string {
	last := ""
	for _, line := range strings.Split(stderr, "\n") {
		if strings.HasPrefix(line, "keyfob: cannot ") {
			last = line
		}
	}
	return last
}

// TestRotateKilledAtEachWrite kills the daemon at each change of a file of the
// vault that a rotation makes.
func TestRotateKilledAtEachWrite(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	kills := 0
	for n := 1; ; n++ {
		watch, err := fsnotify.NewWatcher()
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(r.path("data/vault"), func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				err = watch.Add(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		pid := r.daemonPID()
		killed := make(chan bool)
		go func() {
			events, did := 0, false
			for e := range watch.Events {
				if e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) { // a rename is a Create as well
					if events++; events == n {
						did = syscall.Kill(pid, syscall.SIGKILL) == nil
					}
				}
			}
			killed <- did
		}()
		_, res := r.rotate("base")
		_ = watch.Close()
		if !<-killed {
			if res.code != 0 {
				t.Errorf("exit %d: %s", res.code, res.err)
			}
			break
		}
		r.gone(pid)
		kills++
		r.again(n)
	}
	if kills < 5 {
		t.Errorf("only %d changes of files", kills)
	}
	t.Logf("%d kills", kills)
}

// TestRotateOutlivesItsCommand kills the command while AWS makes the new key:
// what has begun is finished by the daemon.
func TestRotateOutlivesItsCommand(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	cmd := r.command(r.keyfob(), "rotate", "base")
	started, done := make(chan struct{}), make(chan struct{})
	r.steps.stop(func(_ int, action string, answered bool) bool {
		if action == "CreateAccessKey" && !answered {
			<-started
			_ = cmd.Process.Kill()
		}
		if action == "ListAccessKeys" && answered && r.aws.Count("DeleteAccessKey") > 0 {
			close(done)
		}
		return false
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("the daemon left it at %q", r.steps.stop(nil))
	}
	r.steps.stop(nil)
	eventually(t, "the rotation is over", func() bool {
		names, _ := filepath.Glob(r.path("data/rotate.lock"))
		return len(names) > 0 && !strings.Contains(r.must(nil, "doctor", "--offline", "--json").out, "rotation.unfinished")
	})
	id := r.signs("base")
	if id == r.keyID {
		t.Error("the old key is in the vault")
	}
	r.whole(id)
}

// TestTwoRotations: one at a time.
func TestTwoRotations(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	r.steps.stop(func(_ int, action string, answered bool) bool {
		if action != "CreateAccessKey" || answered {
			return false
		}
		if _, res := r.rotate("twin"); res.code != 1 || !strings.HasSuffix(res.err, "keyfob: cannot rotate the keys: another rotation is under way\nhint: try again when it has ended\n") {
			t.Errorf("a second one: exit %d, %q", res.code, res.err)
		}
		return false
	})
	out, res := r.rotate("base")
	if res.code != 0 {
		t.Fatal(res.err)
	}
	r.whole(out.Keys[0].New)
}

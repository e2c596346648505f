package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// world is a log with everything around it, on files of its own.
type world struct {
	t     testing.TB
	path  string
	store *memory
	log   bytes.Buffer // what was logged; read it when Run has ended
	cfg   Config

	mu     sync.Mutex // guards locked
	locked bool
}

var testKey = [32]byte{1, 2, 3}

func newWorld(t testing.TB) *world {
	w := &world{t: t, path: filepath.Join(t.TempDir(), "audit.jsonl"), store: &memory{}}
	l := logrus.New()
	l.SetOutput(&w.log)
	w.cfg = Config{
		Path: w.path, Store: w.store, Log: logrus.NewEntry(l),
		Key:   w.key,
		Users: func(uid string) string { return "user" + uid },
	}
	return w
}

func (w *world) key() ([32]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.locked {
		return [32]byte{}, false
	}
	return testKey, true
}

func (w *world) lock(locked bool) {
	w.mu.Lock()
	w.locked = locked
	w.mu.Unlock()
	w.store.lock(locked)
}

// run starts a log; stop ends it and waits.
func (w *world) run() (l *Log, stop func()) {
	l = Open(w.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := l.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}()
	<-l.running
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-ended }) }
	w.t.Cleanup(stop)
	return l, stop
}

// lines are the current file's lines as JSON objects.
func (w *world) lines() []entry { return linesOf(w.t, w.path) }

func linesOf(t testing.TB, path string) (all []entry) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var e entry
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		all = append(all, e)
	}
	return all
}

func (w *world) verify(l *Log) Report {
	w.t.Helper()
	r, err := l.Verify(w.t.Context())
	if err != nil {
		w.t.Fatalf("Verify: %v", err)
	}
	return r
}

func (w *world) wantOK(l *Log) Report {
	w.t.Helper()
	r := w.verify(l)
	if !r.OK {
		w.t.Fatalf("the chain is broken: %+v", r)
	}
	return r
}

// memory is a cred.Store.
type memory struct {
	mu     sync.Mutex // guards what follows
	m      map[string]cred.Secret
	locked bool
	puts   int
}

func (s *memory) lock(locked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked = locked
}

func (s *memory) Get(_ context.Context, name string) (cred.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return cred.Secret{}, cred.ErrLocked
	}
	v, ok := s.m[name]
	if !ok {
		return cred.Secret{}, cred.ErrNotFound
	}
	return v, nil
}

func (s *memory) Put(_ context.Context, name string, v cred.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return cred.ErrLocked
	}
	if s.m == nil {
		s.m = map[string]cred.Secret{}
	}
	s.m[name] = v
	s.puts++
	return nil
}

func (s *memory) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, name)
	return nil
}

func (s *memory) List(context.Context, string) ([]string, error) { return nil, nil }

func (s *memory) copy() *memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &memory{m: map[string]cred.Secret{}}
	for k, v := range s.m {
		c.m[k] = v
	}
	return c
}

var t0 = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

// program is a caller on the control socket: keyfob, started by pid.
func program(uid string, pid int, exe string) peer.Caller {
	return peer.Caller{UID: uid, PID: 100000 + pid, Start: 1, Exe: "/usr/bin/keyfob", Via: peer.ViaUnix,
		Parent: &peer.Process{PID: pid, Start: 7, Exe: exe}}
}

func handOut(n int) cred.Event {
	return cred.Event{
		Time: t0.Add(time.Duration(n) * time.Second), Kind: cred.EventHandOut, Profile: fmt.Sprintf("p%d", n),
		Via: cred.Endpoint{Kind: cred.ViaProcess}, Caller: program("1000", 2000000+n, "/opt/tool"),
		AccessKeyID: fmt.Sprintf("ASIA%012d", n), AccountID: "123456789012", Expires: t0.Add(time.Hour),
	}
}

func (w *world) flush(l *Log) {
	w.t.Helper()
	if err := l.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestFieldsOfALine(t *testing.T) {
	w := newWorld(t)
	l, stop := w.run()
	l.Record(cred.Event{
		Time: t0, Kind: cred.EventHandOut, Profile: "app", Via: cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9911"},
		Grant: "g1", Caller: peer.Caller{UID: "1000", PID: 2000000000, Start: 5, Exe: "/usr/bin/tool", Via: "pipe", Parent: &peer.Process{PID: 2000000001, Start: 3, Exe: "/usr/bin/aws"}},
		AccessKeyID: "ASIAEXAMPLE", AccountID: "123456789012", Expires: t0.Add(time.Hour),
	})
	w.flush(l)
	l.Record(cred.Event{Time: t0, Kind: cred.EventRefusal, Reason: `no "such" <profile>`})
	w.flush(l)
	stop()
	b, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	h := newHasher(testKey)
	first := `{"version":1,"time":"2026-05-04T03:02:01.000Z","count":1,"event":"handout","profile":"app","endpoint":"imds 127.0.0.1:9911",` +
		`"caller":{"uid":"1000","user":"user1000","pid":2000000001,"program":"/usr/bin/aws"},` +
		`"access_key_id":"ASIAEXAMPLE","account_id":"123456789012","expiration":"2026-05-04T04:02:01Z","previous":"` + h.keyed(nil) + `"}`
	second := `{"version":1,"time":"2026-05-04T03:02:01.000Z","count":1,"event":"refusal","reason":"no \"such\" <profile>","previous":"` + h.keyed([]byte(first)) + `"}`
	if want := first + "\n" + second + "\n"; string(b) != want {
		t.Errorf("the file is\n%swant\n%s", b, want)
	}
	if info, err := os.Stat(w.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if r := Verify(w.path, testKey); !r.OK || r.Entries != 2 || r.Files != 1 || r.First != "2026-05-04T03:02:01.000Z" {
		t.Errorf("Verify: %+v", r)
	}
}

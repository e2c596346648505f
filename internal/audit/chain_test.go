package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// grown is a world whose log has n entries, written in two runs.
func grown(t *testing.T, n int, maxSize int64, keep int) *world {
	w := newWorld(t)
	w.cfg.MaxSize, w.cfg.Keep = maxSize, keep
	for _, part := range [][2]int{{0, n / 2}, {n / 2, n}} {
		l, stop := w.run()
		for i := part[0]; i < part[1]; i++ {
			l.Record(handOut(i))
			w.flush(l)
		}
		stop()
	}
	return w
}

// names are the log's files, oldest first.
func (w *world) names() []string {
	files, err := list(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.path)
	}
	return names
}

func (w *world) all() (all []entry) {
	for _, name := range w.names() {
		all = append(all, linesOf(w.t, name)...)
	}
	return all
}

func TestChainAcrossRotationAndRestarts(t *testing.T) {
	w := grown(t, 60, 4000, 3)
	names := w.names()
	if len(names) != 4 {
		t.Fatalf("files %v, want the current one and 3", names)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		if info.Size() > 4000+500 {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
	}
	last := 0
	for _, e := range w.all() {
		if e.Event == eventRotation {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(e.Profile, "p%d", &n); err != nil || last != 0 && n != last+1 {
			t.Fatalf("entry %q after p%d", e.Profile, last)
		}
		last = n
	}
	if last != 59 {
		t.Errorf("the last entry is p%d", last)
	}
	if r := Verify(w.path, testKey); !r.OK || r.Files != 4 || len(r.Warnings) != 0 {
		t.Errorf("Verify: %+v", r)
	}
	l, _ := w.run()
	w.wantOK(l)
	if r := Verify(w.path, [32]byte{9}); r.OK {
		t.Error("another key verifies the log")
	}
}

// TestFewFiles: nothing was removed yet, so that the log must begin
// where it began.
func TestFewFiles(t *testing.T) {
	w := grown(t, 20, 4000, 10)
	if n := len(w.names()); n < 2 || n > 9 {
		t.Fatalf("%d files", n)
	}
	if r := Verify(w.path, testKey); !r.OK {
		t.Fatalf("Verify: %+v", r)
	}
	if err := os.Remove(w.names()[0]); err != nil {
		t.Fatal(err)
	}
	if r := Verify(w.path, testKey); r.OK || r.Line != 1 {
		t.Errorf("the oldest file is gone: %+v", r)
	}
}

func readLines(t *testing.T, path string) [][]byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

func writeLines(t *testing.T, path string, lines [][]byte) {
	if err := os.WriteFile(path, append(bytes.TrimSuffix(bytes.Join(lines, nil), []byte("\n")), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tamperings are done to a log of four files, oldest first. byChain is what
// the chain alone shows, without the vault's record.
var tamperings = []struct {
	name    string
	byChain bool
	do      func(t *testing.T, names []string)
}{
	{"edit", true, func(t *testing.T, n []string) {
		l := readLines(t, n[2])
		l[3] = bytes.Replace(l[3], []byte(`"/opt/tool"`), []byte(`"/opt/fool"`), 1)
		writeLines(t, n[2], l)
	}},
	{"edit of the last line of a file", true, func(t *testing.T, n []string) {
		l := readLines(t, n[1])
		l[len(l)-1] = bytes.Replace(l[len(l)-1], []byte(`"count":1`), []byte(`"count":2`), 1)
		writeLines(t, n[1], l)
	}},
	{"edit of the last line", false, func(t *testing.T, n []string) {
		l := readLines(t, n[3])
		l[len(l)-1] = bytes.Replace(l[len(l)-1], []byte(`"count":1`), []byte(`"count":2`), 1)
		writeLines(t, n[3], l)
	}},
	{"a hash as if the vault had been locked", true, func(t *testing.T, n []string) {
		l := readLines(t, n[2])
		e, _ := decode(bytes.TrimSpace(l[3]))
		e.Profile, e.Previous = "forged", unkeyed(bytes.TrimSpace(l[2]))
		line, _ := e.encode()
		l[3] = append(line, '\n')
		writeLines(t, n[2], l)
	}},
	{"the end replaced by entries as if the vault had been locked", false, func(t *testing.T, n []string) {
		l := readLines(t, n[3])
		e, _ := decode(bytes.TrimSpace(l[len(l)-1]))
		e.Profile, e.Previous = "forged", unkeyed(bytes.TrimSpace(l[len(l)-2]))
		line, _ := e.encode()
		l[len(l)-1] = append(line, '\n')
		writeLines(t, n[3], l)
	}},
	{"removed line", true, func(t *testing.T, n []string) {
		writeLines(t, n[2], slices.Delete(readLines(t, n[2]), 3, 4))
	}},
	{"removed first line", true, func(t *testing.T, n []string) {
		writeLines(t, n[0], readLines(t, n[0])[1:])
	}},
	{"removed first line of a later file", true, func(t *testing.T, n []string) {
		writeLines(t, n[1], readLines(t, n[1])[1:])
	}},
	{"swapped lines", true, func(t *testing.T, n []string) {
		l := readLines(t, n[1])
		l[2], l[3] = l[3], l[2]
		writeLines(t, n[1], l)
	}},
	{"a line twice", true, func(t *testing.T, n []string) {
		l := readLines(t, n[1])
		writeLines(t, n[1], slices.Insert(l, 3, l[2]))
	}},
	{"inserted garbage", true, func(t *testing.T, n []string) {
		writeLines(t, n[1], slices.Insert(readLines(t, n[1]), 3, []byte("garbage\n")))
	}},
	{"inserted empty line", true, func(t *testing.T, n []string) {
		writeLines(t, n[1], slices.Insert(readLines(t, n[1]), 3, []byte("\n")))
	}},
	{"a line made garbage", true, func(t *testing.T, n []string) {
		l := readLines(t, n[1])
		l[3] = append(bytes.Repeat([]byte("x"), len(l[3])-1), '\n')
		writeLines(t, n[1], l)
	}},
	{"truncated end", false, func(t *testing.T, n []string) {
		l := readLines(t, n[3])
		writeLines(t, n[3], l[:len(l)-2])
	}},
	{"emptied file", false, func(t *testing.T, n []string) {
		if err := os.WriteFile(n[3], nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}},
	{"appended entry", true, func(t *testing.T, n []string) {
		l := readLines(t, n[3])
		writeLines(t, n[3], append(l, []byte("\n"), l[len(l)-1]))
	}},
	{"removed rotated file", true, func(t *testing.T, n []string) { remove(t, n[1]) }},
	{"removed oldest file", true, func(t *testing.T, n []string) { remove(t, n[0]) }},
	{"removed newest rotated file", true, func(t *testing.T, n []string) { remove(t, n[2]) }},
	{"removed current file", false, func(t *testing.T, n []string) { remove(t, n[3]) }},
	{"removed all but the current file", true, func(t *testing.T, n []string) { remove(t, n[:3]...) }},
	{"removed everything", false, func(t *testing.T, n []string) { remove(t, n...) }},
	{"swapped files", true, func(t *testing.T, n []string) {
		for _, m := range [][2]string{{n[0], n[0] + "x"}, {n[1], n[0]}, {n[0] + "x", n[1]}} {
			if err := os.Rename(m[0], m[1]); err != nil {
				t.Fatal(err)
			}
		}
	}},
}

func remove(t *testing.T, names ...string) {
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTampering(t *testing.T) {
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := grown(t, 50, 4000, 3)
			names := w.names()
			if len(names) != 4 {
				t.Fatalf("files %v", names)
			}
			c.do(t, names)
			if r := Verify(w.path, testKey); r.OK == c.byChain {
				t.Errorf("by the chain alone: %+v", r)
			}
			w.cfg.MaxSize = 1 << 20 // the next rotation would remove what was changed
			l, stop := w.run()
			r := w.verify(l)
			if r.OK || r.Reason == "" || r.File == "" {
				t.Errorf("after the start: %+v", r)
			}
			// It stays to be seen, whatever is written later, and is found
			// by the next run too.
			l.Record(handOut(1000))
			w.flush(l)
			if r := w.verify(l); r.OK {
				t.Errorf("after another entry: %+v", r)
			}
			stop()
			if r := Verify(w.path, testKey); r.OK {
				t.Errorf("by the chain, after another entry: %+v", r)
			}
			l, _ = w.run()
			if r := w.verify(l); r.OK {
				t.Errorf("after another start: %+v", r)
			}
		})
	}
}

// TestTamperingWhileRunning: the running log knows its end without the vault.
func TestTamperingWhileRunning(t *testing.T) {
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := grown(t, 50, 4000, 3)
			w.cfg.MaxSize = 1 << 20
			l, _ := w.run()
			w.wantOK(l)
			c.do(t, w.names())
			if r := w.verify(l); r.OK {
				t.Errorf("%+v", r)
			}
			l.Record(handOut(1000))
			w.flush(l)
			if r := w.verify(l); r.OK {
				t.Errorf("after another entry: %+v", r)
			}
		})
	}
}

// TestRotationCoversNothingUp: the rotation that removes the file before a gap
// does not make the gap a beginning.
func TestRotationCoversNothingUp(t *testing.T) {
	w := grown(t, 50, 4000, 3)
	name := w.names()[1]
	writeLines(t, name, readLines(t, name)[1:])
	first := readLines(t, name)[0]
	is := func(name string) bool { return bytes.Equal(readLines(t, name)[0], first) }
	l, _ := w.run()
	oldest := 0 // entries written while the changed file was the oldest
	for i := range 40 {
		l.Record(handOut(100 + i))
		w.flush(l)
		there := slices.ContainsFunc(w.names(), is)
		if r := w.verify(l); r.OK == there {
			t.Fatalf("the changed file is there: %v; %+v", there, r)
		}
		if is(w.names()[0]) {
			oldest++
		}
		if !there && oldest > 0 {
			return
		}
	}
	t.Fatalf("the changed file was not rotated out; it was the oldest for %d entries", oldest)
}

// TestAppendedWhileRunning: entries as if the vault had been locked, with the
// right plain hashes, are not those of a log that runs.
func TestAppendedWhileRunning(t *testing.T) {
	w := grown(t, 5, 0, 0)
	l, _ := w.run()
	w.wantOK(l)
	lines := readLines(t, w.path)
	last := bytes.TrimSpace(lines[4])
	e, _ := decode(last)
	e.Profile, e.Previous = "forged", unkeyed(last)
	line, _ := e.encode()
	writeLines(t, w.path, append(lines, []byte("\n"), line))
	if r := w.verify(l); r.OK || r.Line != 6 {
		t.Errorf("%+v", r)
	}
	l.Record(handOut(9))
	w.flush(l)
	if r := w.verify(l); r.OK || r.Line != 7 {
		t.Errorf("after another entry: %+v", r)
	}
}

// TestVaultRecordRemoved: without the record of its end a log that has sealed
// entries is no longer trusted.
func TestVaultRecordRemoved(t *testing.T) {
	w := grown(t, 5, 0, 0)
	if err := w.store.Delete(t.Context(), HeadRecord); err != nil {
		t.Fatal(err)
	}
	l := readLines(t, w.path)
	writeLines(t, w.path, l[:3])
	log, _ := w.run()
	if r := w.verify(log); r.OK {
		t.Errorf("%+v", r)
	}
}

// TestKilledBeforeTheRecord: what was written after the vault's record was is
// part of the chain.
func TestKilledBeforeTheRecord(t *testing.T) {
	w := grown(t, 5, 0, 0)
	early := w.store.copy()
	l, stop := w.run()
	l.Record(handOut(6))
	l.Record(handOut(7))
	w.flush(l)
	stop()
	w.cfg.Store = early
	l, stop = w.run()
	r := w.wantOK(l)
	if r.Entries != 7 {
		t.Errorf("%+v", r)
	}
	l.Record(handOut(8))
	stop()
	if r := Verify(w.path, testKey); !r.OK || r.Entries != 8 {
		t.Errorf("%+v", r)
	}
}

func TestLockedVault(t *testing.T) {
	w := newWorld(t)
	w.lock(true)
	l, stop := w.run()
	l.Record(handOut(0))
	l.Record(handOut(1))
	w.flush(l)
	if _, err := l.Verify(t.Context()); !errors.Is(err, cred.ErrLocked) || cred.HintOf(err) == "" {
		t.Errorf("Verify while locked: %v", err)
	}
	stop() // restarted while locked
	l, stop = w.run()
	l.Record(handOut(2))
	w.flush(l)
	for i, e := range w.lines() {
		if !strings.HasPrefix(e.Previous, unkeyedMark) {
			t.Errorf("line %d has %q", i, e.Previous)
		}
	}
	w.lock(false)
	l.KeyChanged()
	l.Record(handOut(3))
	w.flush(l)
	r := w.wantOK(l)
	if len(r.Warnings) != 1 || !strings.HasPrefix(r.Warnings[0], "3 entries were written while the vault was locked") {
		t.Errorf("warnings %q", r.Warnings)
	}
	w.lock(true)
	l.Record(handOut(4))
	w.flush(l)
	w.lock(false)
	l.Record(handOut(5))
	w.flush(l)
	if r := w.wantOK(l); r.Entries != 6 || !strings.HasPrefix(r.Warnings[0], "4 entries") {
		t.Errorf("%+v", r)
	}
	stop()
	if r := Verify(w.path, testKey); !r.OK {
		t.Errorf("%+v", r)
	}
	// What is sealed can't be changed any more, locked or not.
	lines := readLines(t, w.path)
	lines[1] = bytes.Replace(lines[1], []byte("/opt/tool"), []byte("/opt/fool"), 1)
	writeLines(t, w.path, lines)
	if r := Verify(w.path, testKey); r.OK || r.Line != 3 {
		t.Errorf("%+v", r)
	}
}

// TestChangedWhileLocked: the log that goes on running remembers what it wrote
// without the key.
func TestChangedWhileLocked(t *testing.T) {
	w := newWorld(t)
	w.lock(true)
	l, _ := w.run()
	for i := range 4 {
		l.Record(handOut(i))
		w.flush(l)
	}
	// Forged well: the plain hashes are right.
	var prev []byte
	var forged [][]byte
	for i, line := range readLines(t, w.path) {
		e, ok := decode(bytes.TrimSpace(line))
		if !ok {
			t.Fatal(string(line))
		}
		if i == 1 {
			e.Caller.Program = "/opt/fool"
		}
		e.Previous = unkeyed(prev)
		prev, _ = e.encode()
		forged = append(forged, append(slices.Clone(prev), '\n'))
	}
	writeLines(t, w.path, forged)
	w.lock(false)
	l.KeyChanged()
	l.Record(handOut(9))
	w.flush(l)
	if r := w.verify(l); r.OK {
		t.Errorf("%+v", r)
	}
}

// TestNoStore: the chain works without a record of its end.
func TestNoStore(t *testing.T) {
	w := newWorld(t)
	w.cfg.Store = nil
	l, stop := w.run()
	l.Record(handOut(1))
	w.flush(l)
	w.wantOK(l)
	stop()
	l, _ = w.run()
	l.Record(handOut(2))
	w.flush(l)
	w.wantOK(l)
}

func TestTornLine(t *testing.T) {
	w := grown(t, 5, 0, 0)
	lines := readLines(t, w.path)
	early := w.store.copy()
	l, stop := w.run()
	l.Record(handOut(77))
	stop()
	after := readLines(t, w.path)
	torn := append(bytes.Join(lines, nil), '\n')
	torn = append(torn, after[5][:len(after[5])/2]...)
	if err := os.WriteFile(w.path, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := Verify(w.path, testKey); !r.OK || r.Entries != 5 || len(r.Warnings) != 1 {
		t.Errorf("before the start: %+v", r)
	}
	if p, err := Read(w.path, Filter{}); err != nil || len(p.Entries) != 5 {
		t.Errorf("Read: %d entries, %v", len(p.Entries), err)
	}
	w.cfg.Store = early
	l, _ = w.run()
	l.Record(handOut(78))
	w.flush(l)
	r := w.wantOK(l)
	if r.Entries != 7 || !slices.Contains(r.Warnings, `1 entries were lost: the entries "lost" say why`) {
		t.Errorf("after the start: %+v", r)
	}
	if e := w.lines()[5]; e.Event != eventLost || e.Reason != tornReason {
		t.Errorf("the entry about it is %+v", e)
	}
}

// TestTornLineThatStays: the rest of a line that can't be removed (a file with
// the append-only attribute) is no break, and nothing can hide behind it.
func TestTornLineThatStays(t *testing.T) {
	w := newWorld(t)
	f := file{path: w.path, maxSize: 1 << 20, keep: 1, log: w.cfg.Log, begun: true}
	h := newHasher(testKey)
	event := func(n int) *entry {
		return &entry{Version: 1, Time: t0.Format(timeForm), Count: int64(n), Event: "handout"}
	}
	for n := range 3 {
		if err := f.append(event(n), h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.f.WriteString(`{"version":1,"ti`); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := f.append(event(n), h); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if r := Verify(w.path, testKey); !r.OK || r.Entries != 7 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "line 4 is the rest") {
		t.Errorf("%+v", r)
	}
	l := readLines(t, w.path)
	if !strings.HasPrefix(string(l[3]), `{"version":1,"ti`) || len(l) != 8 {
		t.Fatalf("%q", l)
	}
	writeLines(t, w.path, slices.Delete(l, 2, 3))
	if r := Verify(w.path, testKey); r.OK {
		t.Errorf("a line before it was removed: %+v", r)
	}
}

// TestPutBackTogether says what can't be found: an older file with the vault's
// older record, put back while nothing runs.
func TestPutBackTogether(t *testing.T) {
	w := grown(t, 5, 0, 0)
	early := w.store.copy()
	old, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	l, stop := w.run()
	l.Record(handOut(6))
	stop()
	if err := os.WriteFile(w.path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	w.cfg.Store = early
	l, _ = w.run()
	w.wantOK(l)
}

// TestRotationFails: the log goes on in the file that it has.
func TestRotationFails(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxSize = 1000
	// A directory that is not empty can't be renamed over.
	if err := os.MkdirAll(filepath.Join(w.path+".1", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, stop := w.run()
	for i := range 10 {
		l.Record(handOut(i))
		w.flush(l)
	}
	if r := w.wantOK(l); r.Entries != 10 || r.Files != 1 {
		t.Errorf("%+v", r)
	}
	stop()
	if n := strings.Count(w.log.String(), "cannot rotate"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &w.log)
	}
}

// TestGap: a rotation that was killed in the middle leaves a gap in the
// numbers, and the order is still right.
func TestGap(t *testing.T) {
	w := grown(t, 50, 4000, 3)
	if err := os.Rename(w.path+".3", w.path+".4"); err != nil {
		t.Fatal(err)
	}
	l, _ := w.run()
	w.wantOK(l)
	for i := range 40 {
		l.Record(handOut(100 + i))
		w.flush(l)
		w.wantOK(l)
	}
	if n := len(w.names()); n != 4 {
		t.Errorf("%v", w.names())
	}
}

// TestFewerFilesKept: a lower setting removes the oldest, which is accounted
// for.
func TestFewerFilesKept(t *testing.T) {
	w := grown(t, 60, 2000, 8)
	if n := len(w.names()); n != 9 {
		t.Fatalf("%d files", n)
	}
	w.cfg.Keep = 2
	l, _ := w.run()
	for i := range 10 {
		l.Record(handOut(100 + i))
		w.flush(l)
		w.wantOK(l)
	}
	if n := len(w.names()); n != 3 {
		t.Errorf("%v", w.names())
	}
}

func TestVerifyIsFast(t *testing.T) {
	if testing.Short() {
		t.Skip("writes some megabytes")
	}
	w := newWorld(t)
	f := file{path: w.path, maxSize: 64 << 20, keep: 1, log: w.cfg.Log, begun: true}
	h := newHasher(testKey)
	for n := range 5000 {
		e := &entry{Version: 1, Time: t0.Format(timeForm), Count: int64(n), Event: "handout", Profile: "app", AccessKeyID: fmt.Sprint("ASIA", n),
			Caller: &callerForm{UID: "1000", User: "user", PID: n, Program: "/usr/bin/some-program"}}
		if err := f.append(e, h); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.close()
	start := time.Now()
	if r := Verify(w.path, testKey); !r.OK || r.Entries != 5000 {
		t.Fatalf("%+v", r)
	}
	verified := time.Since(start)
	start = time.Now()
	p, err := Read(w.path, Filter{AccessKeyID: "ASIA4999"})
	if err != nil || len(p.Entries) != 1 {
		t.Fatalf("%d entries, %v", len(p.Entries), err)
	}
	t.Logf("5000 entries, %d MB: verified in %v, searched in %v", f.size>>20, verified, time.Since(start))
}

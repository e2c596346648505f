package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// follow reads all pages.
func follow(t *testing.T, path string, f Filter) (all []entry) {
	t.Helper()
	for range 1000 {
		p, err := Read(path, f)
		if err != nil {
			t.Fatalf("Read(%+v): %v", f, err)
		}
		for _, raw := range p.Entries {
			var e entry
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			all = append(all, e)
		}
		if f.After = p.Next; f.After == "" {
			return all
		}
	}
	t.Fatal("the pages do not end")
	return nil
}

func profilesOf(all []entry) string {
	var names []string
	for _, e := range all {
		if e.Event != eventRotation {
			names = append(names, e.Profile)
		}
	}
	return strings.Join(names, " ")
}

func TestReadFilters(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxSize = 1500
	l, stop := w.run()
	for i := range 12 {
		e := handOut(i)
		if i%4 == 3 {
			e.Kind, e.AccessKeyID, e.Reason = cred.EventRefusal, "", "denied"
		}
		if i%2 == 1 {
			e.Caller = program("1000", 3000000+i, "/usr/bin/aws (deleted)")
		}
		l.Record(e)
		w.flush(l)
	}
	stop()
	if n := len(w.names()); n < 3 {
		t.Fatalf("%d files", n)
	}
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "p0 p1 p2 p3 p4 p5 p6 p7 p8 p9 p10 p11"},
		{Filter{Profile: "p1"}, "p1"},
		{Filter{Profile: "p"}, ""},
		{Filter{Program: "aws"}, "p1 p3 p5 p7 p9 p11"},
		{Filter{Program: "/usr/bin/aws"}, "p1 p3 p5 p7 p9 p11"},
		{Filter{Program: "/opt/tool"}, "p0 p2 p4 p6 p8 p10"},
		{Filter{Program: "bin/aws"}, ""},
		{Filter{AccessKeyID: "ASIA000000000004"}, "p4"},
		{Filter{Event: cred.EventRefusal}, "p3 p7 p11"},
		{Filter{Event: cred.EventRefusal, Program: "aws", Limit: 2}, "p7 p11"},
		{Filter{Limit: 3}, "p9 p10 p11"},
		{Filter{Limit: 100}, "p0 p1 p2 p3 p4 p5 p6 p7 p8 p9 p10 p11"},
		{Filter{Since: t0.Add(9 * time.Second)}, "p9 p10 p11"},
		{Filter{Until: t0.Add(2 * time.Second)}, "p0 p1"},
		{Filter{Since: t0.Add(2 * time.Second), Until: t0.Add(5 * time.Second), Limit: 2}, "p3 p4"},
		{Filter{Since: t0.Add(time.Hour)}, ""},
	} {
		if got := profilesOf(follow(t, w.path, c.f)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
}

func TestReadPages(t *testing.T) {
	w := newWorld(t)
	f := file{path: w.path, maxSize: 100 << 10, keep: 20, log: w.cfg.Log, begun: true}
	h := newHasher(testKey)
	const n = 2500
	for i := range n {
		if err := f.append(&entry{Version: 1, Time: t0.Format(timeForm), Count: 1, Event: "handout", Profile: fmt.Sprint("p", i)}, h); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.close()
	p, err := Read(w.path, Filter{})
	if err != nil || len(p.Entries) != pageEntries || p.Next == "" {
		t.Fatalf("the first page has %d entries, next %q, %v", len(p.Entries), p.Next, err)
	}
	check := func(all []entry, from int) {
		t.Helper()
		if len(all) != n-from {
			t.Fatalf("%d entries, want %d", len(all), n-from)
		}
		for i, e := range all {
			if e.Profile != fmt.Sprint("p", from+i) {
				t.Fatalf("entry %d is %s", i, e.Profile)
			}
		}
	}
	check(follow(t, w.path, Filter{}), 0)
	check(follow(t, w.path, Filter{Limit: 1700}), n-1700)
	check(follow(t, w.path, Filter{Limit: pageEntries}), n-pageEntries)

	// Between two pages of the newest 2200 the log rotates and grows: still
	// those 2200.
	first, err := Read(w.path, Filter{Limit: 2200})
	if err != nil {
		t.Fatal(err)
	}
	f = file{path: w.path, maxSize: 100 << 10, keep: 20, log: w.cfg.Log}
	for i := range 1000 {
		if err := f.append(&entry{Version: 1, Time: t0.Format(timeForm), Count: 1, Event: "handout", Profile: fmt.Sprint("later", i)}, h); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.close()
	var all []entry
	for _, raw := range first.Entries {
		e, _ := decode(raw)
		all = append(all, e)
	}
	check(append(all, follow(t, w.path, Filter{Limit: 2200, After: first.Next})...), n-2200)

	// The file of a cursor is gone: what is left follows.
	gone := w.names()[0]
	p, err = Read(gone, Filter{})
	if err != nil || p.Next != "" {
		t.Fatal(err, p.Next)
	}
	s, err := open(w.path)
	if err != nil {
		t.Fatal(err)
	}
	at := cursor{file: s[0].id()}.String()
	s.close()
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if got := follow(t, w.path, Filter{After: at}); len(got) != n+1000-len(p.Entries) {
		t.Errorf("%d entries after the oldest file is gone", len(got))
	}
	for _, bad := range []string{"x", "1.2.3", strings.Repeat("0", 16) + ".-1.0", "0123456789abcdef.1", at + "x", strings.Repeat("0", 16) + ".99999999999999999999.0"} {
		if _, err := Read(w.path, Filter{After: bad}); !errors.Is(err, ErrCursor) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	s, err = open(w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, offset := range []int64{3, 1 << 40} {
		if _, err := Read(w.path, Filter{After: cursor{s[0].id(), offset, 0}.String()}); !errors.Is(err, ErrCursor) {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
}

func TestReadNothing(t *testing.T) {
	for _, path := range []string{t.TempDir() + "/audit.jsonl", t.TempDir() + "/no/such/audit.jsonl"} {
		p, err := Read(path, Filter{Limit: 3})
		if err != nil || p.Entries == nil || len(p.Entries) != 0 || p.Next != "" {
			t.Errorf("%+v, %v", p, err)
		}
		if r := Verify(path, testKey); !r.OK || r.Entries != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// TestReadForeignLines: what is no entry is passed over.
func TestReadForeignLines(t *testing.T) {
	path := t.TempDir() + "/audit.jsonl"
	good := `{"version":1,"time":"2026-01-01T00:00:00Z","count":1,"event":"handout","profile":"a","previous":"x"}`
	text := "garbage\n\n{}\n[]\n" + strings.Repeat("y", 3*maxLine) + "\n" + good + "\n{\"version\":1}\n\x00\xff\n" + good + "\r\n" + good[:20]
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Read(path, Filter{Profile: "a"})
	if err != nil || len(p.Entries) != 2 {
		t.Errorf("%q, %v", p.Entries, err)
	}
	if r := Verify(path, testKey); r.OK || r.Line != 1 {
		t.Errorf("%+v", r)
	}
}

// TestReadWhileItGrows: the running log answers with everything up to now,
// whatever rotates meanwhile.
func TestReadWhileItGrows(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxSize, w.cfg.Keep = 4000, 50
	l, _ := w.run()
	for i := range 100 {
		l.Record(handOut(i))
		p, err := l.Read(t.Context(), Filter{})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Entries) != i+1 {
			t.Fatalf("after %d events there are %d entries", i+1, len(p.Entries))
		}
	}
	w.wantOK(l)
}

package audit

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFiles gives garbage to everything that reads the log. Nothing may
// panic; a page holds valid entries and pages end; a chain is whole only if a
// simple second reading says so; and whatever stands there, the log starts
// on it and what it then writes is read back.
func FuzzFiles(f *testing.F) {
	h := newHasher(testKey)
	var a, b []byte
	var prev []byte
	for i, dst := range []*[]byte{&a, &a, &a, &b, &b} {
		e := entry{Version: 1, Time: t0.Format(timeForm), Count: int64(i), Event: "handout", Previous: h.keyed(prev)}
		if i == 4 {
			e.Previous = unkeyed(prev)
		}
		prev, _ = e.encode()
		*dst = append(append(*dst, prev...), '\n')
	}
	f.Add(a, b)
	f.Add(a, b[:len(b)/2])
	f.Add([]byte{}, a)
	f.Add(a[:len(a)/2], b)
	f.Add([]byte("\n\n{}\n"), []byte("\x00\xff"))
	f.Add(bytes.Repeat([]byte("x"), maxLine+100), append(bytes.Repeat([]byte("y"), maxLine+1), '\n'))
	rotation, _ := (&entry{Version: 1, Time: "x", Event: eventRotation, Oldest: "sha256:00", Previous: "sha256:00"}).encode()
	f.Add(append(rotation, '\n'), []byte(`{"version":1,"event":"lost","count":-5,"reason":"a line was cut short","previous":"x"}`+"\n"))
	f.Fuzz(func(t *testing.T, older, current []byte) {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		for p, text := range map[string][]byte{path + ".1": older, path: current} {
			if err := os.WriteFile(p, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := Verify(path, testKey)
		if r.OK != simplyWhole(h, older, current) {
			t.Errorf("Verify says %+v", r)
		}
		if !r.OK && r.Reason == "" {
			t.Error("a break without a reason")
		}
		n := 0
		for filter := (Filter{Limit: 7}); ; {
			p, err := Read(path, filter)
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range p.Entries {
				if !json.Valid(raw) || bytes.IndexByte(raw, '\n') >= 0 {
					t.Errorf("an entry that is none: %q", raw)
				}
			}
			if n += len(p.Entries); n > 7 {
				t.Fatal("more than the limit")
			}
			if filter.After = p.Next; p.Next == "" {
				break
			}
		}
		w := &world{t: t, path: path, store: &memory{}, cfg: Config{Path: path, Users: func(string) string { return "" }}}
		w.cfg.Store, w.cfg.Key = w.store, w.key
		l, stop := w.run()
		l.Record(handOut(1))
		stop()
		p, err := Read(path, Filter{AccessKeyID: handOut(1).AccessKeyID, Limit: 1})
		if err != nil || len(p.Entries) != 1 {
			t.Errorf("what was written is not read: %v", err)
		}
	})
}

// simplyWhole is Verify for two files, written in another way.
func simplyWhole(h *hasher, older, current []byte) bool {
	type parsed struct {
		line []byte
		e    entry
		ok   bool
	}
	var all []parsed
	var starts []string
	for i, text := range [][]byte{older, current} {
		began := false
		for len(text) > 0 {
			line, rest, whole := bytes.Cut(text, []byte("\n"))
			text = rest
			if !whole && i == 1 {
				break // cut short
			}
			p := parsed{line: line}
			if whole && len(line) < maxLine {
				p.e, p.ok = decode(line)
			}
			if p.ok && !began {
				starts, began = append(starts, p.e.Previous), true
			}
			all = append(all, p)
		}
	}
	var prev []byte
	first := true
	oldest := ""
	for i, p := range all {
		if !p.ok {
			next := i + 1
			for next < len(all) && !all[next].ok {
				next++
			}
			if next == len(all) || all[next].e.Event != eventLost || all[next].e.Reason != tornReason {
				return false
			}
			continue
		}
		if !first && p.e.Previous != h.keyed(prev) && p.e.Previous != unkeyed(prev) {
			return false
		}
		if p.e.Event == eventRotation {
			oldest = p.e.Oldest
		}
		prev, first = p.line, false
	}
	if first {
		return true
	}
	if oldest == "" && (starts[0] == h.keyed(nil) || starts[0] == unkeyed(nil)) {
		return true
	}
	for _, s := range starts {
		if s == oldest {
			return true
		}
	}
	return false
}

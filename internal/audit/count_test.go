package audit

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

func sum(all []entry, event string) (lines int, count int64) {
	for _, e := range all {
		if e.Event == event {
			lines++
			count += e.Count
		}
	}
	return lines, count
}

// TestOneLineAMinute: the first event of a caller is written at once, what
// repeats is one line a minute, and nothing wakes when nothing happens.
func TestOneLineAMinute(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		l, stop := w.run()
		e := cred.Event{Kind: cred.EventHandOut, Profile: "app", Via: cred.Endpoint{Kind: cred.ViaExec}, Caller: program("7", 2000000, "/opt/tool"), AccessKeyID: "ASIA1"}
		start := time.Now()
		l.Record(e)
		synctest.Wait()
		if all := w.lines(); len(all) != 1 || all[0].Count != 1 {
			t.Fatalf("after the first event: %+v", all)
		}
		// Ten a second for five minutes.
		var last time.Time
		n := int64(1)
		for time.Since(start) < 5*time.Minute-time.Second {
			time.Sleep(100 * time.Millisecond)
			last = time.Now()
			l.Record(e)
			n++
		}
		lines, _ := sum(w.lines(), cred.EventHandOut)
		if lines < 4 || lines > 6 {
			t.Errorf("%d lines in five minutes", lines)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		all := w.lines()
		if _, count := sum(all, cred.EventHandOut); count != n {
			t.Errorf("%d events are counted, %d came", count, n)
		}
		if got := all[len(all)-1].Time; got != last.UTC().Format(timeForm) {
			t.Errorf("the last line is of %s, the last event of %s", got, last)
		}
		for i := 2; i < len(all); i++ {
			a, b := all[i-1].when(), all[i].when()
			if d := b.Sub(a); d < lineEvery-2*bunch {
				t.Errorf("line %d is %v after the one before", i, d)
			}
		}
		// After a quiet hour the next one is written at once again.
		puts := w.store.puts
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.store.puts != puts {
			t.Errorf("%d notes were made while nothing happened", w.store.puts-puts)
		}
		before := len(all)
		l.Record(e)
		synctest.Wait()
		if all = w.lines(); len(all) != before+1 {
			t.Errorf("after a quiet hour: %d lines, want %d", len(all), before+1)
		}
		// Its repetitions are in memory until the minute has passed, and are
		// written at the end.
		l.Record(e)
		l.Record(e)
		stop()
		if _, count := sum(w.lines(), cred.EventHandOut); count != n+3 {
			t.Errorf("%d events are counted, %d came", count, n+3)
		}
	})
	if r := Verify(w.path, testKey); !r.OK {
		t.Errorf("%+v", r)
	}
}

// TestQuietCaller: who comes back after some quiet minutes is written at once,
// also while others keep the writer busy.
func TestQuietCaller(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		l, _ := w.run()
		busy, quiet := handOut(1), handOut(2)
		busy.Time, quiet.Time = time.Time{}, time.Time{}
		synctest.Wait() // the file is there
		for i := range 600 {
			l.Record(busy)
			if i%290 == 0 { // each 290 s
				before := len(w.lines())
				l.Record(quiet)
				synctest.Wait()
				all := w.lines()
				if len(all) == before || all[len(all)-1].Profile != quiet.Profile {
					t.Errorf("second %d: the line is not there", i)
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		w.flush(l)
		if _, n := sum(w.lines(), cred.EventHandOut); n != 603 {
			t.Errorf("%d events are counted, 603 came", n)
		}
	})
}

// TestWhatMakesALine: each of these has a line of its own.
func TestWhatMakesALine(t *testing.T) {
	w := newWorld(t)
	l, stop := w.run()
	base := cred.Event{Time: t0, Kind: cred.EventHandOut, Profile: "app", Via: cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:1"}, Caller: program("7", 2000000, "/opt/tool"), AccessKeyID: "ASIA1"}
	variants := []func(*cred.Event){
		func(*cred.Event) {},
		func(e *cred.Event) { e.Kind = cred.EventRefusal },
		func(e *cred.Event) { e.Profile = "other" },
		func(e *cred.Event) { e.Via.Listen = "127.0.0.1:2" },
		func(e *cred.Event) { e.Via.Kind = cred.ViaContainer },
		func(e *cred.Event) { e.AccessKeyID = "ASIA2" },
		func(e *cred.Event) { e.Reason = "because" },
		func(e *cred.Event) { e.Caller = program("8", 2000000, "/opt/tool") },
		func(e *cred.Event) { e.Caller = program("7", 2000001, "/opt/tool") },
		func(e *cred.Event) { e.Caller = program("7", 2000000, "/opt/fool") },
		func(e *cred.Event) { e.Caller.Parent.Start++ },
		func(e *cred.Event) { e.Caller = peer.Caller{} },
		func(e *cred.Event) {
			e.Caller = peer.Caller{UID: "7", PID: 2000000, Exe: "/opt/tool", Via: peer.ViaTCP}
		},
		func(e *cred.Event) {
			e.Caller = peer.Caller{UID: "7", PID: 2000009, Exe: "/opt/tool", Via: peer.ViaTCP}
		},
		func(e *cred.Event) {
			e.Caller = peer.Caller{UID: "7", PID: 2000009, Exe: "/opt/fool", Via: peer.ViaTCP}
		},
	}
	n := 0
	for range 3 {
		for _, v := range variants {
			e := base
			e.Caller = program("7", 2000000, "/opt/tool")
			v(&e)
			if e.Caller.Parent != nil {
				e.Caller.PID = 3000000 + n // keyfob itself is another process each time
				n++
			}
			l.Record(e)
		}
	}
	stop()
	total := int64(0)
	seen := map[string]int64{}
	for _, e := range w.lines() {
		key := fmt.Sprintf("%s %s %s %s %s %+v", e.Event, e.Profile, e.Endpoint, e.AccessKeyID, e.Reason, e.Caller)
		if e.Caller != nil {
			key = strings.Replace(key, fmt.Sprintf("%+v", e.Caller), fmt.Sprintf("%+v", *e.Caller), 1)
		}
		seen[key] += e.Count
		total += e.Count
	}
	if total != int64(3*len(variants)) {
		t.Errorf("%d events, want %d", total, 3*len(variants))
	}
	// A process that differs in nothing but when it started, or in the kind
	// of its connection, reads the same.
	if len(seen) != len(variants)-2 {
		t.Errorf("%d different lines for %d kinds of event: %v", len(seen), len(variants), seen)
	}
	if n := len(w.lines()); n > 2*len(variants) {
		t.Errorf("%d lines for %d kinds of event", n, len(variants))
	}
}

// TestFiveHundredCallers: a hundred thousand events a second leave memory and
// the file as small as they were.
func TestFiveHundredCallers(t *testing.T) {
	w := newWorld(t)
	l, stop := w.run()
	const callers, each = 500, 200
	events := make([]cred.Event, callers)
	for i := range events {
		events[i] = cred.Event{Kind: cred.EventHandOut, Profile: "app", Via: cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9911"},
			Caller: program(fmt.Sprint(1000+i%10), 2000000+i, "/opt/tool"), AccessKeyID: "ASIA1"}
	}
	round := func() {
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for range each {
					for i := g; i < callers; i += 4 {
						l.Record(events[i])
					}
				}
			})
		}
		wg.Wait()
	}
	round()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	start := time.Now()
	const rounds = 2
	for range rounds {
		round()
	}
	took := time.Since(start)
	after := heap()
	stop()
	if after > before+256<<10 {
		t.Errorf("the heap grew from %d to %d", before, after)
	}
	info, err := os.Stat(w.path)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(callers * each)
	all := w.lines()
	if lines, count := sum(all, cred.EventHandOut); count != (rounds+1)*n || lines > 2*callers {
		t.Errorf("%d lines count %d, want %d", lines, count, (rounds+1)*n)
	}
	t.Logf("%.0f events a second; heap %d kB, then %d kB; the file has %d lines, %d kB",
		float64(rounds*n)/took.Seconds(), before>>10, after>>10, len(all), info.Size()>>10)
}

// TestMadeUpNames: whoever is refused under ever new names does not make the
// file or the memory grow, and does not push out anybody else's hand-outs.
func TestMadeUpNames(t *testing.T) {
	w := newWorld(t)
	l, stop := w.run()
	long := strings.Repeat("x", 8<<10)
	const n = 10000
	for i := range n {
		l.Record(cred.Event{Kind: cred.EventRefusal, Profile: fmt.Sprint(i, long), Via: cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9911"},
			Caller: program("666", 2000000, "/bin/evil"), Reason: fmt.Sprint("there is no profile ", i)})
		if i%1000 == 0 {
			e := handOut(i)
			e.Time = time.Time{}
			l.Record(e)
		}
	}
	w.flush(l)
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	stop()
	all := w.lines()
	lines, refused := sum(all, cred.EventRefusal)
	_, lost := sum(all, eventLost)
	if refused+lost != n {
		t.Errorf("%d refusals and %d lost, %d came", refused, lost, n)
	}
	// Refusals of one minute, and the line that has the rest, twice.
	if lines > maxRefused+4 {
		t.Errorf("%d lines for refusals", lines)
	}
	if _, got := sum(all, cred.EventHandOut); got != 10 {
		t.Errorf("%d hand-outs of others, want 10", got)
	}
	info, err := os.Stat(w.path)
	if err != nil || info.Size() > 64<<10 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	t.Logf("%d refusals: %d lines, %d counted, %d lost; file %d kB, heap %d kB", n, lines, refused, lost, info.Size()>>10, m.HeapAlloc>>10)
}

// TestManyProcesses: a user who starts processes as fast as it can gets lines
// by program when there are too many to tell apart.
func TestManyProcesses(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		l, stop := w.run()
		const n = 2000
		for i := range n {
			e := handOut(0)
			e.Time = time.Time{}
			e.Caller = program("1000", 2000000+i, "/opt/tool")
			l.Record(e)
			if i%100 == 99 {
				synctest.Wait()
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		all := w.lines()
		lines, count := sum(all, cred.EventHandOut)
		if count != n || lines > maxHandOuts+4 {
			t.Errorf("%d lines count %d", lines, count)
		}
		folded := int64(0)
		for _, e := range all {
			if e.Caller.PID == 0 {
				if e.Caller.Program != "/opt/tool" || e.AccessKeyID == "" {
					t.Errorf("%+v", e)
				}
				folded += e.Count
			}
		}
		if folded != n-maxHandOuts {
			t.Errorf("%d are told by program, want %d", folded, n-maxHandOuts)
		}
		// Then there is room again.
		e := handOut(0)
		e.Time = time.Time{}
		e.Caller = program("1000", 1, "/opt/tool")
		l.Record(e)
		stop()
		if last := w.lines()[lines]; last.Caller.PID != 1 {
			t.Errorf("%+v", last)
		}
	})
}

// TestManyUsers: nothing that is kept by user is kept for ever.
func TestManyUsers(t *testing.T) {
	b := newBook()
	for i := range 3000 {
		for j := range 30 {
			e := cred.Event{Kind: cred.EventRefusal, Profile: fmt.Sprint(j)}
			r := b.place(&e, who{uid: fmt.Sprint(i)})
			r.count(1, t0, time.Time{})
		}
	}
	if len(b.records) > maxRecords+2 || len(b.users) > manyUsers {
		t.Errorf("%d records, %d users", len(b.records), len(b.users))
	}
	var n int64
	for _, r := range b.records {
		n += r.pending
		b.remove(r)
	}
	b.sweep()
	if n != 90000 || len(b.records) != 0 || len(b.users) != 0 {
		t.Errorf("%d counted; %d records and %d users are left", n, len(b.records), len(b.users))
	}
}

// TestLostIsTold: what finds no place in memory is an entry too. Hand-outs
// have room where refusals have none.
func TestLostIsTold(t *testing.T) {
	w := newWorld(t)
	l := Open(w.cfg) // nobody takes anything out yet
	for i := range maxRefusals + 100 {
		e := handOut(i)
		e.Kind = cred.EventRefusal
		l.Record(e)
	}
	for i := range maxSlots - maxRefusals + 7 {
		l.Record(handOut(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	all := w.lines()
	if _, n := sum(all, eventLost); n != 107 {
		t.Errorf("%d lost, want 107", n)
	}
	if _, n := sum(all, cred.EventHandOut); n != maxSlots-maxRefusals {
		t.Errorf("%d hand-outs", n)
	}
	if r := Verify(w.path, testKey); !r.OK || len(r.Warnings) != 1 {
		t.Errorf("%+v", r)
	}
	if err := l.Run(ctx); err == nil {
		t.Error("Run ran twice")
	}
	l.Record(handOut(1)) // neither panics nor blocks
}

func TestRecordAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	l, _ := w.run()
	e := handOut(1)
	l.Record(e)
	w.flush(l)
	if n := testing.AllocsPerRun(1000, func() { l.Record(e) }); n != 0 {
		t.Errorf("a repeated event allocates %v times", n)
	}
}

// TestEventsHoldNoSecret: what Record is given has no place for one, nor has
// a line for anything that is not in CONTRACT.md §8.
func TestEventsHoldNoSecret(t *testing.T) {
	secret := reflect.TypeFor[cred.Secret]()
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, path string) {
		if typ == secret {
			t.Errorf("%s is a secret", path)
		}
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array:
			if typ.PkgPath() == "" {
				walk(typ.Elem(), path)
			}
		case reflect.Struct:
			if typ.PkgPath() != "time" && !strings.HasPrefix(typ.PkgPath(), "sync") {
				for f := range typ.NumField() {
					if f := typ.Field(f); f.IsExported() {
						walk(f.Type, path+"."+f.Name)
					}
				}
			}
		}
	}
	walk(reflect.TypeFor[cred.Event](), "Event")
	var names []string
	for f := range reflect.TypeFor[entry]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[entry]().Field(f).Tag.Get("json"), ",")
		names = append(names, name)
	}
	if got := strings.Join(names, " "); got != "version time count event profile endpoint caller access_key_id account_id expiration reason oldest previous" {
		t.Errorf("an entry has %s", got)
	}
}

// TestNastyNames: whatever a name holds, a line is one line of valid JSON of
// bounded length.
func TestNastyNames(t *testing.T) {
	w := newWorld(t)
	l, stop := w.run()
	for _, name := range []string{"a\nb", "a\x00b", "\xff\xfe", "\u2028", `"}` + "\n{", strings.Repeat("\x01", 100000), strings.Repeat("é", 300), strings.Repeat("\xff", 300)} {
		l.Record(cred.Event{Kind: cred.EventRefusal, Profile: name, Reason: name, Caller: peer.Caller{UID: name, PID: 2000000, Exe: name, Via: "pipe", Parent: &peer.Process{PID: 2000000, Exe: name}}})
	}
	stop()
	all := w.lines()
	if len(all) != 8 {
		t.Errorf("%d lines", len(all))
	}
	b, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if len(line) >= maxLine {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if r := Verify(w.path, testKey); !r.OK {
		t.Errorf("%+v", r)
	}
}

package audit

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// TestProgramsOfConnections: the program behind a TCP connection is found by
// the writer; a client that opens connections as fast as it can costs no more
// than its share of a core, and all of its events are counted.
func TestProgramsOfConnections(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		t.Fatal(err)
	}
	l4, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l4.Close()
	peers := peer.NewResolver()
	defer peers.Close()
	connect := func() (peer.Caller, net.Conn) {
		c, err := net.Dial("tcp", l4.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l4.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		who, err := peers.Of(s)
		if err != nil {
			t.Skipf("this machine does not tell whose a connection is: %v", err)
		}
		return who, c
	}
	w := newWorld(t)
	l, stop := w.run()
	event := cred.Event{Kind: cred.EventHandOut, Profile: "app", Via: cred.Endpoint{Kind: cred.ViaIMDS, Listen: l4.Addr().String()}, AccessKeyID: "ASIA1"}

	// known records an event of a fresh connection until its program is found:
	// on a busy machine a search may take longer than it is given.
	known := func(profile string, record func(cred.Event, net.Conn)) *callerForm {
		for i := range 20 {
			e := event
			var c net.Conn
			e.Profile = fmt.Sprint(profile, i)
			e.Caller, c = connect()
			record(e, c)
			w.flush(l)
			_ = c.Close()
			all := w.lines()
			if last := all[len(all)-1]; last.Profile == e.Profile && last.Caller.Program != "" {
				return last.Caller
			}
		}
		t.Fatalf("%s: no program is found in 20 tries", profile)
		return nil
	}
	first := known("open", func(e cred.Event, _ net.Conn) { l.Record(e) })
	if first.Program != self || first.PID != os.Getpid() || first.User != "user"+peer.Self() || first.Parent == "" {
		t.Fatalf("the first connection is of %+v, want %s, pid %d", first, self, os.Getpid())
	}
	// One that was expected is known although it is gone when it is recorded.
	known("expected", func(e cred.Event, c net.Conn) {
		l.Expect(e.Caller)
		w.flush(l)
		_ = c.Close()
		l.Record(e)
	})
	before := int64(len(w.lines()))

	const n = 1000
	start := time.Now()
	for range n {
		var c net.Conn
		event.Caller, c = connect()
		l.Record(event)
		_ = c.Close()
	}
	took := time.Since(start)
	stop()
	all := w.lines()
	lines, count := sum(all, cred.EventHandOut)
	if count != n+before {
		t.Errorf("%d events are counted, want %d", count, n+before)
	}
	found := int64(0)
	for _, e := range all {
		if e.Caller.UID != peer.Self() {
			t.Errorf("%+v", e)
		}
		if e.Caller.Program != "" {
			found += e.Count
		}
	}
	if lines -= int(before); lines > 5 {
		t.Errorf("%d lines for one program", lines)
	}
	t.Logf("%d connections in %v: %d lines, the program is known of %d", n, took, lines, found)
}

// TestSearchBudget: searches for programs cost one user no more than its
// share, and nobody's go without what others left.
func TestSearchBudget(t *testing.T) {
	var b budget
	now := time.Now()
	spent := time.Duration(0)
	for range 10000 { // ten seconds, a try each millisecond that takes two
		if b.has(now, searchUser) {
			b.left -= 2 * time.Millisecond
			spent += 2 * time.Millisecond
		}
		now = now.Add(time.Millisecond)
	}
	if most := 12*searchUser + 2*time.Millisecond; spent > most || spent < 10*searchUser {
		t.Errorf("%v were spent in ten seconds, at most %v are allowed", spent, most)
	}
	b.has(now.Add(time.Hour), searchUser)
	if b.left != 2*searchUser {
		t.Errorf("after a quiet hour %v are left", b.left)
	}
}

// TestControlSocketCaller: the program is the one that runs keyfob, and parent
// the one that started that.
func TestControlSocketCaller(t *testing.T) {
	pid := os.Getpid()
	start, err := peer.StartTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	w := newFinder(func(string) string { return "" }).find(t.Context(), peer.Caller{UID: "1", PID: 1, Exe: "/usr/bin/keyfob", Via: peer.ViaUnix,
		Parent: &peer.Process{PID: pid, Start: start, Exe: self}})
	if w.program != self || w.pid != pid || !strings.HasPrefix(w.parent, "/") {
		t.Errorf("%+v", w)
	}
	if got := parentOf(peer.Process{PID: pid, Start: start + 1}); got != "" {
		t.Errorf("the parent of a process that has ended is %q", got)
	}
	// A program whose file can't be read still has its pid.
	w = newFinder(nil).find(t.Context(), peer.Caller{UID: "1", PID: 1, Via: peer.ViaUnix, Parent: &peer.Process{PID: pid, Start: start}})
	if w.pid != pid || w.program != "" {
		t.Errorf("%+v", w)
	}
}

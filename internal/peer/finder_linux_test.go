package peer

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketOf is the client's socket of an accepted connection.
func socketOf(t *testing.T, r *Resolver, server net.Conn) socket {
	t.Helper()
	local, _ := addrPort(server.RemoteAddr())
	remote, _ := addrPort(server.LocalAddr())
	sock, err := r.sys.diag.find(local, remote)
	if err != nil {
		t.Fatal(err)
	}
	return sock
}

func program(t *testing.T, r *Resolver, server net.Conn) Process {
	t.Helper()
	caller, err := r.Of(server)
	if err != nil {
		t.Fatal(err)
	}
	p, err := caller.Program(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.AtHome(t.Context()); err != nil {
		t.Error(err)
	}
	return p
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Connections of several processes in turn, each told from the others, at
// every way of looking: known, new, and among all.
func TestProgramOfManyConnections(t *testing.T) {
	l := listen(t, "tcp4")
	r := NewResolver()
	want := map[int]bool{}
	var held []net.Conn
	for range findRecent + 2 {
		cmd := client(t, l, nil)
		c := accept(t, l)
		if p := program(t, r, c); p.PID != cmd.Process.Pid {
			t.Fatalf("found %d, want %d", p.PID, cmd.Process.Pid)
		}
		want[cmd.Process.Pid] = true
		held = append(held, c)
		for range 3 {
			mine, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer mine.Close()
			if p := program(t, r, accept(t, l)); p.PID != os.Getpid() {
				t.Fatalf("found %d, want this process", p.PID)
			}
		}
	}
	for _, c := range held { // each again, some forgotten since
		p := program(t, r, c)
		if !want[p.PID] {
			t.Errorf("found %d", p.PID)
		}
		delete(want, p.PID)
	}
	if n := len(r.sys.finder.user(uint32(os.Geteuid())).recent); n > findRecent {
		t.Errorf("%d processes are remembered", n)
	}
	before := descriptors(t)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after > before-findRecent {
		t.Errorf("%d descriptors before Close, %d after", before, after)
	}
}

// A process with thousands of descriptors, and one that is neither known nor
// new.
func TestProgramByTheLongWays(t *testing.T) {
	l := listen(t, "tcp4")
	r := resolver(t)
	var open []net.Conn
	for range 2 * findSmall {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c, accept(t, l))
	}
	for _, i := range []int{1, len(open) - 1, 101, 501, 503} {
		if p := program(t, r, open[i]); p.PID != os.Getpid() {
			t.Errorf("%d: %+v", i, p)
		}
		clear(r.sys.finder.user(uint32(os.Geteuid())).seen)
	}
	cmd := client(t, l, nil)
	sock := socketOf(t, r, accept(t, l))
	u := &owner{uid: sock.uid}
	defer func() {
		u.turn = make(chan struct{}, 1)
		u.forget()
	}()
	p, err := u.everywhere(t.Context(), r.sys.home, sock.inode)
	if err != nil || p.PID != cmd.Process.Pid {
		t.Errorf("%+v, %v", p, err)
	}
}

// Those who look for what nobody holds, fifty at once, get their answer in
// time, and not by fifty searches.
func TestProgramOfNobodyIsBounded(t *testing.T) {
	if err := (&home{}).load(); err != nil {
		t.Skip(err)
	}
	f := &finder{home: &home{}}
	if err := f.home.load(); err != nil {
		t.Fatal(err)
	}
	defer f.close()
	var wg sync.WaitGroup
	began := time.Now()
	for i := range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if p, err := f.find(ctx, socket{uid: uint32(os.Geteuid()), inode: 1 + uint32(i)}); !errors.Is(err, ErrNoProgram) {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	wg.Wait()
	first := time.Since(began)
	u := f.user(uint32(os.Geteuid()))
	if !u.rest.After(time.Now().Add(-first)) {
		t.Error("no rest after a search")
	}
	t.Logf("50 at once took %s", first)
	// Within the rest the next one waits, or gives up with its context.
	u.rest = time.Now().Add(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.find(ctx, socket{uid: u.uid, inode: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("within the rest: %v", err)
	}
	// Another user's search does not.
	if _, err := f.find(t.Context(), socket{uid: u.uid + 1, inode: 1}); !errors.Is(err, ErrNoProgram) {
		t.Errorf("another user: %v", err)
	}
}

// A caller whose process may not be looked at is known by user and no more:
// he is not at home, and has no program.
func TestWithoutSightOfOthers(t *testing.T) {
	const dial = "KEYFOB_TEST_SIGHT"
	if target := os.Getenv(dial); target != "" {
		l := listen(t, "tcp4")
		if err := os.WriteFile(target, []byte(l.Addr().String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if SeesOthers() {
			t.Error("has CAP_SYS_PTRACE")
		}
		caller, err := resolver(t).Of(accept(t, l))
		if err != nil || caller.UID != "0" {
			t.Fatalf("%+v, %v", caller, err)
		}
		if p, err := caller.Program(t.Context()); !errors.Is(err, ErrNoProgram) {
			t.Errorf("program: %+v, %v", p, err)
		}
		if err := caller.AtHome(t.Context()); !errors.Is(err, ErrUnidentified) {
			t.Errorf("at home: %v", err)
		}
		if sum, err := caller.ProgramSHA256(t.Context()); !errors.Is(err, ErrNoProgram) {
			t.Errorf("hash: %x, %v", sum, err)
		}
		return
	}
	needRoot(t)
	self := publicSelf(t)
	dir := publicDir(t)
	if err := os.Chown(dir, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = []string{dial + "=" + dir + "/address", "TMPDIR=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("%s: %v", t.Name(), err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(20 * time.Second)
	for {
		address, err := os.ReadFile(dir + "/address")
		if err == nil && len(address) > 0 {
			c, err := net.Dial("tcp4", string(address))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("%v\n%s", err, out.String())
		case <-deadline:
			t.Fatal("the other process did not listen")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := <-ended; err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// A process that was found and becomes another program is that program on its
// next connection, and stays what it was on the one before.
func TestProgramThatBecomesAnother(t *testing.T) {
	l := listen(t, "tcp4")
	r := resolver(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	next := publicSelf(t)
	cmd := exec.Command(self)
	cmd.Env = []string{"KEYFOB_TEST_DIAL=tcp4|" + l.Addr().String(), "KEYFOB_TEST_EXEC=" + next, "GORACE=atexit_sleep_ms=0"}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	first, err := r.Of(accept(t, l))
	if err != nil {
		t.Fatal(err)
	}
	before, err := first.Program(t.Context())
	if err != nil || before.PID != cmd.Process.Pid || before.Exe != self {
		t.Fatalf("%+v, %v", before, err)
	}
	if _, err := stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	after := program(t, r, accept(t, l))
	if after.PID != before.PID || after.Start != before.Start || after.Exe != next {
		t.Errorf("%+v, which was %+v, is not %s", after, before, next)
	}
	if p, err := first.Program(t.Context()); err != nil || p != before {
		t.Errorf("the connection before is now %+v's, %v", p, err)
	}
}

// startAs starts a client under a number that was another process's, nil
// where the kernel does not let it.
func startAs(t *testing.T, pid int, l net.Listener) *exec.Cmd {
	t.Helper()
	for range 50 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Skipf("%s: numbers can't be chosen here: %v", t.Name(), err)
		}
		cmd, connected := clientLater(t, l, nil)
		if cmd.Process.Pid == pid {
			connected()
			return cmd
		}
	}
	t.Skipf("%s: other processes took the number each time", t.Name())
	return nil
}

// A process that was found, ended, and whose number is another's now is not
// taken for it, nor the other for it.
func TestReusedPID(t *testing.T) {
	needRoot(t)
	for _, network := range []string{"tcp4", "unix"} {
		t.Run(network, func(t *testing.T) {
			l := listen(t, network)
			r := resolver(t)
			first := client(t, l, nil)
			pid := first.Process.Pid
			old := accept(t, l)
			var was Process
			if network == "tcp4" {
				was = program(t, r, old)
			} else {
				c, err := r.Of(old)
				if err != nil {
					t.Fatal(err)
				}
				was = Process{PID: c.PID, Start: c.Start}
			}
			_ = first.Process.Kill()
			_ = first.Wait()
			time.Sleep(20 * time.Millisecond) // another clock tick: 10 ms
			startAs(t, pid, l)
			server := accept(t, l)
			if got, err := r.Of(old); err == nil {
				t.Errorf("the connection of the one that ended is %+v", got)
			}
			now, err := r.Of(server)
			if err != nil {
				t.Fatal(err)
			}
			p := Process{PID: now.PID, Start: now.Start}
			if network == "tcp4" {
				if p, err = now.Program(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if p.PID != pid || p.Start == was.Start {
				t.Errorf("found %+v, which was %+v", p, was)
			}
			if Alive(was.PID, was.Start) {
				t.Error("the one that ended is alive")
			}
		})
	}
}

// What a descriptor leads to is read as the kernel writes it, and no other way.
func TestProcNames(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "42": 42, "2147483648": 1 << 31} {
		if got, ok := decimal([]byte(text)); !ok || got != want {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "-1", "1a", ".", "99999999999999999999999"} {
		if got, ok := decimal([]byte(text)); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
	for range dirNames([]byte{1, 2, 3}) {
		t.Error("a name in three bytes")
	}
	if pid := newestPID(); pid <= 0 {
		t.Errorf("newest PID is %d", pid)
	}
	if !isProcess(os.Getpid()) {
		t.Error("this is no process")
	}
	for _, task := range func() []os.DirEntry { d, _ := os.ReadDir("/proc/self/task"); return d }() {
		if tid, _ := strconv.Atoi(task.Name()); tid != os.Getpid() && isProcess(tid) {
			t.Error("a thread is a process")
		}
	}
	if uid, ok := ownerOf(os.Getpid()); !ok || uid != uint32(unix.Geteuid()) {
		t.Errorf("own process is of %d, %v", uid, ok)
	}
}

// TestTurns: a program that uses descriptors in turn is looked for at the next
// one first.
func TestTurns(t *testing.T) {
	for _, c := range []struct {
		found []int
		next  int
	}{
		{[]int{7}, 7},
		{[]int{7, 7, 7}, 7},
		{[]int{7, 9, 7}, 9},
		{[]int{7, 9, 7, 9}, 7},
		{[]int{5, 6, 7, 5, 6}, 7},
		{[]int{5, 6, 7, 8, 9}, 9}, // a program that closes nothing
	} {
		var k known
		for _, fd := range c.found {
			k.found(fd)
		}
		if got := k.guesses[0].next; got != c.next || len(k.guesses) > findGuesses {
			t.Errorf("after %v it is looked for at %d first, not at %d", c.found, got, c.next)
		}
	}
}

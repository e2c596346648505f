package peer

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"
)

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c) S 7 42 42 34816 42 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10 18446744073709551615\n"
	s, err := parseStat([]byte(line))
	if err != nil || s != (stat{ppid: 7, tty: 34816, start: 98765}) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "42", "42 (a", "42 (a) S", "42 (a) S 7 42 42 0 1 2 3", "42 (a) S x 42 42 34816 42 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// A PID that another process has by now is told apart by its start time: a
// Process or a grant that names the old one is not the new one.
func TestStartTimeTellsProcessesApart(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = []string{"KEYFOB_TEST_DIAL="}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if Alive(cmd.Process.Pid, start) {
		t.Error("a process that was waited for is alive")
	}
	mine, err := StartTime(os.Getpid())
	if err != nil || !Alive(os.Getpid(), mine) || Alive(os.Getpid(), mine-1) {
		t.Errorf("own process: start %d, %v", mine, err)
	}
	if p := parent(0); p != nil {
		t.Errorf("parent 0 is %+v", p)
	}
}

func TestParseDiagRefuses(t *testing.T) {
	l := listen(t, "tcp4")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	local, _ := addrPort(c.LocalAddr())
	remote, _ := addrPort(c.RemoteAddr())
	d := &diag{}
	defer d.close()
	request, err := diagRequest(local, remote)
	if err != nil {
		t.Fatal(err)
	}
	good, err := d.ask(request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseDiag(good, local, remote); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"short":       func(b []byte) []byte { return b[:diagAnswerSize-1] },
		"empty":       func(b []byte) []byte { return nil },
		"listener":    func(b []byte) []byte { b[1] = 10; return b },
		"time-wait":   func(b []byte) []byte { b[1] = 6; return b },
		"syn-recv":    func(b []byte) []byte { b[1] = 3; return b },
		"syn-sent":    func(b []byte) []byte { b[1] = 2; return b },
		"state 200":   func(b []byte) []byte { b[1] = 200; return b },
		"other port":  func(b []byte) []byte { b[5]++; return b },
		"other peer":  func(b []byte) []byte { b[4+23]++; return b },
		"no process":  func(b []byte) []byte { copy(b[68:72], []byte{0, 0, 0, 0}); return b },
		"other owner": func(b []byte) []byte { b[4+7]++; return b },
	} {
		if sock, err := parseDiag(change(append([]byte(nil), good...)), local, remote); !errors.Is(err, ErrUnidentified) {
			t.Errorf("%s: %+v, %v", name, sock, err)
		}
	}
}

func BenchmarkOfTCP(b *testing.B) {
	l := listen(b, "tcp4")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	server := accept(b, l)
	r := resolver(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Of(server); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOfUnix(b *testing.B) {
	l := listen(b, "unix")
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	server := accept(b, l)
	r := resolver(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Of(server); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProgramTCP(b *testing.B) {
	l := listen(b, "tcp4")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	server := accept(b, l)
	r := resolver(b)
	b.ReportAllocs()
	for b.Loop() {
		caller, err := r.Of(server)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := caller.Program(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

package audit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
)

// TestMain is also the program that is killed, or runs out of disk, in tests.
func TestMain(m *testing.M) {
	switch role := os.Getenv("AUDIT_TEST_ROLE"); role {
	case "":
		os.Exit(m.Run())
	default:
		os.Exit(child(role, os.Getenv("AUDIT_TEST_PATH")))
	}
}

func childLog(path string) *Log {
	return Open(Config{Path: path, MaxSize: 4 << 10, Keep: 3, Key: func() ([32]byte, bool) { return testKey, true },
		Users: func(string) string { return "u" }})
}

func startChild(t *testing.T, role, path string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "AUDIT_TEST_ROLE="+role, "AUDIT_TEST_PATH="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

func child(role, path string) int {
	switch role {
	case "write":
		// Writes as fast as it can, until it is killed, and says of each
		// entry that it is written.
		l := childLog(path)
		go func() { _ = l.Run(context.Background()) }()
		for !l.started.Load() {
			time.Sleep(time.Millisecond)
		}
		for i := 0; ; i++ {
			e := handOut(i)
			e.Caller.UID = fmt.Sprint(i % 200)
			l.Record(e)
			if err := l.Flush(context.Background()); err != nil {
				return 1
			}
			fmt.Println(e.Profile)
		}
	default:
		return limitedChild(role, path)
	}
}

// TestKilled: a kill at any moment leaves what was said to be written, and a
// chain that goes on.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	last := ""
	for round := range 12 {
		cmd, out := startChild(t, "write", path)
		var kill *time.Timer
		for {
			line, err := out.ReadString('\n')
			if err != nil {
				break
			}
			last = strings.TrimSpace(line)
			if kill == nil {
				kill = time.AfterFunc(time.Duration(10+10*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		if kill == nil {
			t.Fatal("the child wrote nothing")
		}
		kill.Stop()
		if r := Verify(path, testKey); !r.OK {
			t.Fatalf("round %d: %+v", round, r)
		}
		p, err := Read(path, Filter{Profile: last, Limit: 1})
		if err != nil || len(p.Entries) != 1 {
			t.Fatalf("round %d: %s is not there: %v", round, last, err)
		}
	}
	if files, _ := list(path); len(files) < 2 {
		t.Errorf("no rotation was met: %d file", len(files))
	}
}

// TestFileRemovedOrReplaced: the log goes on in a new file, and says so once.
func TestFileRemovedOrReplaced(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(path string) error
		ok   bool // the chain is whole afterwards
	}{
		{"removed", os.Remove, false},
		{"directory removed", func(p string) error { return os.RemoveAll(filepath.Dir(p)) }, false},
		{"replaced", func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.WriteFile(p, nil, 0o644)
		}, false},
		{"renamed as a rotation would", func(p string) error { return os.Rename(p, p+".1") }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			dir := filepath.Join(filepath.Dir(w.path), "data")
			w.path = filepath.Join(dir, "audit.jsonl")
			w.cfg.Path = w.path
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				w.t = t
				l, stop := w.run()
				l.Record(handOut(0))
				synctest.Wait()
				if err := c.do(w.path); err != nil {
					t.Fatal(err)
				}
				l.Record(handOut(1))
				synctest.Wait()
				if _, err := os.Stat(dir); err != nil {
					if l.Warning() == "" {
						t.Error("no warning while the directory is not there")
					}
					if err := os.Mkdir(dir, 0o700); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Second)
					synctest.Wait()
				}
				l.Record(handOut(2))
				synctest.Wait()
				if got := profilesOf(w.lines()); got != "p1 p2" {
					t.Errorf("the new file has %s", got)
				}
				if l.Warning() != "" {
					t.Errorf("Warning: %s", l.Warning())
				}
				if info, err := os.Stat(w.path); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("mode %v, %v", info.Mode(), err)
				}
				if r := w.verify(l); r.OK != c.ok {
					t.Errorf("%+v", r)
				}
				stop()
			})
			if n := strings.Count(w.log.String(), "moved or removed"); n != 1 {
				t.Errorf("told %d times:\n%s", n, &w.log)
			}
		})
	}
}

// TestNotAFile: what stands in place of the log is not written to, and does
// not hold the writer up.
func TestNotAFile(t *testing.T) {
	w := newWorld(t)
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full")
	}
	if err := os.Symlink("/dev/full", w.path); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		l, stop := w.run()
		for i := range 20 {
			l.Record(handOut(i))
			time.Sleep(3 * time.Second)
		}
		if !strings.Contains(l.Warning(), "is not a regular file") {
			t.Errorf("Warning: %q", l.Warning())
		}
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, n := sum(w.lines(), cred.EventHandOut); n != 20 {
			t.Errorf("%d of 20 are there when writing is possible again", n)
		}
		if l.Warning() != "" {
			t.Errorf("Warning: %q", l.Warning())
		}
		stop()
	})
	if n := strings.Count(w.log.String(), "cannot write the audit log"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &w.log)
	}
	if !strings.Contains(w.log.String(), "audit log is written again") {
		t.Errorf("the log does not say that it is well again:\n%s", &w.log)
	}
}

// TestDirectoryNotWritable is for a user whom permissions hold.
func TestDirectoryNotWritable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	w := newWorld(t)
	dir := filepath.Dir(w.path)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		l, stop := w.run()
		l.Record(handOut(0))
		synctest.Wait()
		if l.Warning() == "" {
			t.Error("no warning")
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := profilesOf(w.lines()); got != "p0" {
			t.Errorf("the file has %q", got)
		}
		stop()
	})
}

// TestLooseMode: a file that others may read is closed to them.
func TestLooseMode(t *testing.T) {
	w := grown(t, 2, 0, 0)
	if err := os.Chmod(w.path, 0o644); err != nil {
		t.Fatal(err)
	}
	l, _ := w.run()
	l.Record(handOut(3))
	w.flush(l)
	if info, err := os.Stat(w.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	w.wantOK(l)
}

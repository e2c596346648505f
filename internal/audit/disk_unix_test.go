//go:build unix

package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// limitedChild runs into a limit of the file's size, which cuts a write short
// in the middle of a line just as a full disk does, then has it lifted.
func limitedChild(role, path string) int {
	if role != "full" {
		return 2
	}
	signal.Ignore(syscall.SIGXFSZ)
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	lift := r
	r.Cur = 1500
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l := childLog(path)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	go func() { defer close(ended); _ = l.Run(ctx) }()
	for !l.started.Load() {
		time.Sleep(time.Millisecond)
	}
	for i := range 10 {
		l.Record(handOut(i))
		if err := l.Flush(ctx); err != nil {
			return 1
		}
	}
	full := l.Warning()
	info, err := os.Stat(path)
	if err != nil {
		return 1
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lift); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for end := time.Now().Add(20 * time.Second); l.Warning() != "" && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	lifted := l.Warning()
	cancel()
	<-ended
	return map[bool]int{true: 0, false: 1}[json.NewEncoder(os.Stdout).Encode(map[string]any{"full": full, "lifted": lifted, "size": info.Size()}) == nil]
}

// TestFullDisk: entries wait in memory and are written when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel() // it waits five seconds for a retry
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	cmd, out := startChild(t, "full", path)
	var said struct {
		Full, Lifted string
		Size         int64
	}
	derr := json.NewDecoder(out).Decode(&said)
	if err := cmd.Wait(); err != nil || derr != nil {
		t.Fatal(err, derr)
	}
	if said.Full == "" || said.Lifted != "" || said.Size > 1500 {
		t.Errorf("%+v", said)
	}
	if r := Verify(path, testKey); !r.OK || r.Entries != 10 || len(r.Warnings) != 0 {
		t.Errorf("%+v", r)
	}
	if _, n := sum(linesOf(t, path), cred.EventHandOut); n != 10 {
		t.Errorf("%d of 10 are there", n)
	}
}

// TestReplacedByPipe: opening a pipe would wait for a reader.
func TestReplacedByPipe(t *testing.T) {
	w := newWorld(t)
	l, stop := w.run()
	l.Record(handOut(0))
	w.flush(l)
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(w.path, 0o600); err != nil {
		t.Skipf("no pipes here: %v", err)
	}
	l.Record(handOut(1))
	w.flush(l)
	if l.Warning() == "" {
		t.Error("no warning")
	}
	stop()
}

package peer

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// ofFile is hashes.of for a file that no process runs.
func ofFile(t *testing.T, h *hashes, path string) ([sha256.Size]byte, fileID) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := identity(f)
	if err != nil {
		t.Fatal(err)
	}
	e := h.entry(id)
	if !e.done {
		if err := e.read(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	return e.sum, id
}

// A file that changed is another one, also when its size and its time of
// change were put back.
func TestHashKnowsAChangedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	at := time.Now().Add(-time.Hour)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // the grain of a file system's time
	}
	h := &hashes{}
	write("one")
	first, id := ofFile(t, h, path)
	again, id2 := ofFile(t, h, path)
	if first != sha256.Sum256([]byte("one")) || again != first || id != id2 || len(h.files) != 1 {
		t.Errorf("%x, %x, %+v, %+v", first, again, id, id2)
	}
	write("two")
	second, id := ofFile(t, h, path)
	if second != sha256.Sum256([]byte("two")) || id == id2 {
		t.Errorf("%x, %+v", second, id)
	}
	for i := range 2 * hashesKept { // no end of memory
		h.entry(fileID{ino: uint64(i)})
	}
	if len(h.files) > hashesKept {
		t.Errorf("%d are kept", len(h.files))
	}
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if id, err := identity(d); err == nil && filepath.Separator == '/' {
		t.Errorf("a directory: %+v", id)
	}
}

// Reading that ran out of time goes on where it was left.
func TestHashGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	content := make([]byte, 3*hashChunk+7)
	content[hashChunk] = 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e := &fileHash{state: sha256.New()}
	steps := 0
	for !e.done {
		if steps++; steps > 10 {
			t.Fatal("it does not get on")
		}
		err := e.read(&oneLook{Context: t.Context()}, f)
		if !e.done && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if steps != 4 || e.sum != sha256.Sum256(content) {
		t.Errorf("%d steps, %x", steps, e.sum)
	}
}

// oneLook is a context that ends after it was looked at once.
type oneLook struct {
	context.Context
	looks int
}

func (o *oneLook) Err() error {
	if o.looks++; o.looks > 1 {
		return context.DeadlineExceeded
	}
	return nil
}

func TestHashOfACallerWithoutAProgram(t *testing.T) {
	for _, c := range []Caller{{}, {UID: "1", Via: ViaUnix}, {UID: "1", Via: ViaTCP, Exe: "/bin/sh"}, {UID: "1", Via: ViaTCP, PID: os.Getpid(), Exe: "/bin/sh"}} {
		if sum, err := c.ProgramSHA256(t.Context()); !errors.Is(err, ErrNoProgram) {
			t.Errorf("%+v: %x, %v", c, sum, err)
		}
	}
}

func TestProgramSHA256(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	caller, err := Of(server)
	if err != nil {
		t.Skipf("%s: %v", t.Name(), err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if sum, err := caller.ProgramSHA256(t.Context()); err != nil || sum != sha256.Sum256(b) {
			t.Errorf("%x, %v", sum, err)
		}
	}
}

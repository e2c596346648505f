package logging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A log is put aside also while somebody reads it and while something else
// appends to it, as a daemon's standard error does.
func TestALogIsPutAsideWhileItIsOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyfobd.log")
	moved := 0
	l, err := OpenRotating(path, 100, 2, func(*os.File) { moved++ })
	if err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	line := func(c string) string { return strings.Repeat(c, 59) + "\n" }
	for _, c := range []string{"a", "b", "c", "d"} {
		if n, err := l.Write([]byte(line(c))); n != 60 || err != nil {
			t.Fatal(n, err)
		}
	}
	for name, want := range map[string]string{"": "d", ".1": "c", ".2": "b"} {
		if b, err := os.ReadFile(path + name); err != nil || string(b) != line(want) {
			t.Errorf("%s is %q, %v; want %q", name, b, err, line(want))
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("more are kept than asked for")
	}
	for _, f := range []interface{ Close() error }{reader, other, l} {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

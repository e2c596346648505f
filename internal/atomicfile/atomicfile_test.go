package atomicfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"keyfob/internal/atomicfile"
)

// one checks that the directory holds path and nothing else, with this text.
func one(t *testing.T, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != text {
		t.Errorf("the file holds %q, %v; want %q", b, err, text)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside it: %v, %v", entries, err)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, o := range []atomicfile.Options{{}, {Mode: 0o644}, {Mode: 0o400, Prefix: ".p-"}, {}} {
		text := o.Mode.String()
		if err := atomicfile.Write(path, []byte(text), o); err != nil {
			t.Fatal(err)
		}
		one(t, path, text)
		want := o.Mode
		if want == 0 {
			want = 0o600
		}
		if info, err := os.Stat(path); runtime.GOOS != "windows" && (err != nil || info.Mode().Perm() != want) {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, want)
		}
	}
}

// TestFailure: what fails leaves the old file, and no other.
func TestFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := atomicfile.Write(path, []byte("old"), atomicfile.Options{}); err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	for _, o := range []atomicfile.Options{
		{Written: func(*os.File) error { return mine }},
		{Ready: func() error { return mine }},
		{Written: func(f *os.File) error { _ = f.Close(); return nil }},
	} {
		err := atomicfile.Write(path, []byte("new"), o)
		if err == nil || o.Ready != nil && err != mine {
			t.Errorf("error %v", err)
		}
		one(t, path, "old")
	}
	if err := atomicfile.Write(filepath.Join(path, "x"), nil, atomicfile.Options{}); err == nil {
		t.Error("a file below a file")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(filepath.Join(dir, "d"), nil, atomicfile.Options{}); err == nil {
		t.Error("a file in the place of a directory")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestWhole: a reader finds one text or the other.
func TestWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	texts := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<15)}
	if err := atomicfile.Write(path, texts[0], atomicfile.Options{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 50 {
			if err := atomicfile.Write(path, texts[i%2], atomicfile.Options{}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
		var b []byte
		err := atomicfile.Retry(func() (err error) { b, err = os.ReadFile(path); return err })
		if err != nil || !bytes.Equal(b, texts[0]) && !bytes.Equal(b, texts[1]) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
}

// TestUnreadableDirectory: a directory that may be written and not read can't
// be synced; the file is in place all the same.
func TestUnreadableDirectory(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("needs a directory that this process may not read")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o300); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if err := atomicfile.Write(filepath.Join(dir, "f"), []byte("x"), atomicfile.Options{}); err != nil {
		t.Error(err)
	}
}

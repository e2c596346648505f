//go:build linux || darwin

package cli

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// A pipe that stays open and empty does not keep a command that has nobody to
// wait for any more.
func TestStandardInputIsNotWaitedForInVain(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := &asker{app: &app{Process: Process{Stdin: r}}}
	if _, err := w.WriteString("123456\nhalf"); err != nil {
		t.Fatal(err)
	}
	if line, err := p.stdinLine(t.Context()); err != nil || line != "123456" {
		t.Errorf("%q, %v", line, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	ended := make(chan error, 1)
	go func() {
		_, err := p.stdinLine(ctx)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for ever")
	}
	_ = w.Close()
	if line, err := p.stdinLine(t.Context()); err != nil || line != "" {
		t.Errorf("at its end: %q, %v", line, err)
	}
}

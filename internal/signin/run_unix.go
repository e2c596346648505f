//go:build linux || darwin

package signin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
)

// output runs a program with that standard input and returns its standard
// output, of which nothing is in the error. An *exec.ExitError is its exit
// code, with a shortened standard error.
func output(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd, err := command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var out, errs limited
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	runtime.LockOSThread() // see prepare
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		exit.Stderr = errs.b.Bytes()
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return out.b.String(), nil
}

// limited keeps the first 4 KiB that are written to it.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), 4096-l.b.Len())])
	return len(p), nil
}

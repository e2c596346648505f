package interact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"keyfob/internal/prefetch"
)

// signinNobody is the exit code of keyfob-signin that says that nobody is
// there.
const signinNobody = 3

const (
	maxSigninOutput = 64 << 10
	// signinGrace is how long it may take to end after its last word.
	signinGrace = 2 * time.Second
)

// signinExit is an exit code other than 0.
type signinExit struct{ code int }

func (e *signinExit) Error() string {
	return fmt.Sprintf("%s ended with exit code %d", SigninName, e.code)
}

// runSignin runs one command of keyfob-signin in a process group of its own,
// the request on standard input, and returns what it wrote. When ctx ends
// first, the whole group is killed. Nothing is left when it returns. Errors:
// the context's, *signinExit, or that it can't be run.
func runSignin(ctx context.Context, program string, env []string, request []byte, command string) (out, stderr []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(program, command)
	cmd.Env = env
	cmd.Dir = rootDir()
	cmd.Stdin = bytes.NewReader(request)
	cmd.WaitDelay = signinGrace
	said := &firstBytes{limit: 1000}
	cmd.Stderr = said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	ownGroup(cmd)
	prefetch.Program(cmd.Path)
	// The death signal comes when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("cannot run %s: %w", SigninName, err)
	}
	// It ends when it has closed its standard output. Before Wait, its
	// process id can't be anybody else's.
	read := make(chan struct{})
	var readErr error
	go func() {
		defer close(read)
		out, readErr = io.ReadAll(io.LimitReader(stdout, maxSigninOutput))
	}()
	select {
	case <-read:
	case <-ctx.Done():
		killGroup(cmd)
		_ = stdout.Close()
		<-read
	}
	late := time.AfterFunc(signinGrace, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	late.Stop()
	if ctx.Err() != nil {
		clear(out)
		return nil, nil, ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		err = &signinExit{exit.ExitCode()}
	case err == nil:
		err = readErr
	}
	return out, said.b.Bytes(), err
}

// firstBytes keeps the first bytes that are written to it.
type firstBytes struct {
	b     bytes.Buffer
	limit int
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.b.Write(p[:min(len(p), f.limit-f.b.Len())])
	return len(p), nil
}

// sessionEnv is keyfob-signin's environment: what finds the session and what
// dialogs need to look like the others, and nothing that may hold a secret.
func sessionEnv(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		switch name {
		case "HOME", "PATH", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR",
			"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DESKTOP_SESSION", "DBUS_SESSION_BUS_ADDRESS", "PINENTRY_PROGRAM":
			env = append(env, kv)
		case "SYSTEMROOT", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "TEMP", "TMP", "PATHEXT", "COMSPEC":
			if runtime.GOOS == "windows" {
				env = append(env, kv)
			}
		default:
			if strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "LC_") {
				env = append(env, kv)
			}
		}
	}
	return append(env, "GOTRACEBACK=none") // a crash prints no memory
}

//go:build linux || darwin

package signin

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// secondsLeft is how long the question still stands, for programs that
// close their window themselves: where we are killed, they may stay.
func secondsLeft(ctx context.Context) int {
	end, ok := ctx.Deadline()
	if !ok {
		return int(askLimit.Seconds())
	}
	return max(1, int(time.Until(end).Seconds()+0.999))
}

// exitOf is the exit code of a program that ended by itself, with what it
// wrote on standard error; -1 otherwise.
func exitOf(err error) (code int, stderr string) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return -1, ""
	}
	return exit.ExitCode(), string(exit.Stderr)
}

// noDisplay recognises what GTK says when it was not let in. It ends with
// the same code as for a dialog that was closed.
func noDisplay(stderr string) bool {
	s := strings.ToLower(stderr)
	return strings.Contains(s, "cannot open display") || strings.Contains(s, "failed to open display") || strings.Contains(s, "unable to init server")
}

// askZenity asks in a dialog of GTK. In its text an underscore marks a key
// and a backslash is an escape.
func askZenity(ctx context.Context, p prompt) (string, error) {
	text := strings.NewReplacer(`\`, `\\`, "_", "__").Replace(p.body() + "\n" + p.label)
	out, err := output(ctx, "", "zenity", "--entry", "--hide-text", "--title="+p.title, "--text="+text,
		"--timeout="+strconv.Itoa(secondsLeft(ctx)))
	switch code, stderr := exitOf(err); {
	case code == 1 && !noDisplay(stderr):
		return "", errRefused
	case code == 1:
		return "", fmt.Errorf("%w: it can't open the display", errNobody)
	case code == 5:
		return "", errors.New("nobody answered")
	}
	return out, err
}

// askKdialog asks in a dialog of KDE. In its text a backslash is an escape.
func askKdialog(ctx context.Context, p prompt) (string, error) {
	text := strings.ReplaceAll(p.body()+"\n"+p.label, `\`, `\\`)
	out, err := output(ctx, "", "kdialog", "--title", p.title, "--password", text)
	if code, _ := exitOf(err); code == 1 {
		return "", errRefused
	}
	return out, err
}

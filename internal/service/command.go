package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// commandTime is what a service manager's command may take: a little more
// than the units allow the daemon to start or to stop.
const commandTime = 50 * time.Second

// command runs a program and returns what it printed, in one piece. Its
// language is set to C, because failures are recognised by their words.
func command(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=")
	if dir := runtimeDir(); dir != "" {
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+dir)
	}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return strings.TrimSpace(string(out)), err
}

// commandError is a failed command in words.
func commandError(argv []string, out string, err error) error {
	what := strings.Join(argv, " ")
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fail("install the package that has "+argv[0], "cannot run %s: there is no such program", argv[0])
	case errors.Is(err, context.DeadlineExceeded):
		return fail("", "cannot wait longer for %s: no answer in %v", what, commandTime)
	}
	line := lastLine(out)
	if line == "" {
		return fail("", "cannot finish %s: %w", what, err)
	}
	return fail("", "cannot finish %s: %s", what, line)
}

// lastLine is the one that tells most: the first that says Failed, or the
// last one.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, l := range lines {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "Failed ") || strings.HasPrefix(l, "Job for ") {
			return l
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}

// runtimeDir is the user's own where the variable is not set: su and cron do
// not set it, and systemctl --user finds the user's systemd through it.
func runtimeDir() string {
	if os.Getenv("XDG_RUNTIME_DIR") != "" || os.Getuid() <= 0 {
		return ""
	}
	dir := "/run/user/" + strconv.Itoa(os.Getuid())
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return ""
	}
	return dir
}

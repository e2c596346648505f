package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// unitState are properties of a unit (systemctl show).
type unitState map[string]string

var unitProperties = []string{"Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "Result", "StatusText", "FragmentPath", "NeedDaemonReload", "ExecMainStartTimestampMonotonic"}

func (s *systemd) show(ctx context.Context, unit string) (unitState, error) {
	argv := s.systemctl("show", "--property="+strings.Join(unitProperties, ","), unit)
	out, err := command(ctx, argv...)
	if err != nil {
		return nil, s.explain(argv, out, err)
	}
	u := unitState{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && slices.Contains(unitProperties, k) {
			u[k] = v
		}
	}
	if u["LoadState"] == "" {
		return nil, fail("", "cannot understand what systemctl says of %s", unit)
	}
	return u, nil
}

func isEnabled(u unitState) bool { return strings.HasPrefix(u["UnitFileState"], "enabled") }

func active(u unitState) bool {
	switch u["ActiveState"] {
	case "active", "activating", "reloading", "deactivating":
		return true
	}
	return false
}

func maskedError(what string) error {
	unit := filepath.Base(what)
	return fail("systemctl unmask "+unit+" (with --user for your own service)", "cannot use %s: it is masked, which forbids to start it", unit)
}

// explain puts what systemctl says into words.
func (s *systemd) explain(argv []string, out string, err error) error {
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(out, w) })
	}
	what := "use systemd"
	if len(argv) > 1 {
		what = strings.TrimPrefix(strings.Join(argv[1:], " "), "--user ")
	}
	switch {
	case has("has not been booted with systemd"), errors.Is(err, exec.ErrNotFound):
		return fail("keyfob starts a daemon by itself when it needs one", "cannot use systemd: it does not run on this machine")
	case has("Failed to connect to bus", "Failed to get D-Bus connection", "Failed to connect to system", "Failed to connect to user", "XDG_RUNTIME_DIR not defined"):
		if s.c.System {
			return fail("in a container run keyfobd run --service --system in the foreground", "cannot reach systemd: %s", lastLine(out))
		}
		name := s.userName()
		return fail(fmt.Sprintf("log in as %s (not by su or sudo), or: sudo loginctl enable-linger %s, then export XDG_RUNTIME_DIR=/run/user/%d", name, name, s.c.UID),
			"cannot reach the systemd of user %s: none runs, because nobody is logged in as %s and lingering is off", name, name)
	case has("is masked"):
		return maskedError(serviceUnit)
	case has("Read-only file system"):
		return fail("the file system is read-only: install a package, or a user's own service without --system", "cannot %s: %s", what, lastLine(out))
	case has("Access denied", "Interactive authentication required", "Permission denied", "Operation not permitted"):
		return fail("run it with sudo", "cannot %s: systemd does not permit it", what)
	case has("Job for ", "control process exited", "start request repeated"):
		return fail("keyfob service logs"+s.c.flag()+" tells why", "cannot %s: the daemon does not start", what)
	case has("Unit file "+serviceUnit+" does not exist", serviceUnit+" not found", serviceUnit+" not loaded"):
		return s.notInstalled(what)
	}
	return commandError(argv, out, err)
}

func (s *systemd) userName() string {
	if u, err := user.LookupId(strconv.Itoa(s.c.UID)); err == nil {
		return u.Username
	}
	return strconv.Itoa(s.c.UID)
}

// lingers reports whether the user's systemd runs without a login
// (loginctl(1), enable-linger).
func (s *systemd) lingers() bool {
	_, err := os.Stat(s.c.at("/var/lib/systemd/linger/" + s.userName()))
	return err == nil
}

func userExists(c Config) bool {
	b, err := os.ReadFile(c.at("/etc/passwd"))
	return err == nil && strings.Contains("\n"+string(b), "\n"+SystemUser+":")
}

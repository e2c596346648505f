package cli

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// homeOfUser is the home directory of the user database, "" if it has none
// for us. Package os/user would, with cgo, link this program dynamically and
// double the time of its start.
func homeOfUser() string {
	uid := strconv.Itoa(os.Getuid())
	if b, err := os.ReadFile("/etc/passwd"); err == nil {
		if home := passwdHome(string(b), uid); home != "" {
			return home
		}
	}
	// Users of LDAP and the like: getent(1) asks what the C library would.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "passwd", uid).Output()
	if err != nil {
		return ""
	}
	return passwdHome(string(out), uid)
}

// passwdHome finds the home directory of uid in lines of passwd(5).
func passwdHome(lines, uid string) string {
	for line := range strings.Lines(lines) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= 7 && f[2] == uid && strings.HasPrefix(f[5], "/") {
			return f[5]
		}
	}
	return ""
}

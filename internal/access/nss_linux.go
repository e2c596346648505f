package access

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// A program without cgo knows the users and groups of /etc/passwd and
// /etc/group alone; the name service switch (nsswitch.conf(5)) may have more:
// LDAP, systemd-homed. What they say, libc's own tools tell: getent(1) and
// id(1). They are programs of their own, so that a directory server that does
// not answer costs no thread of ours and is given up in time.

// nssFile names the databases.
const nssFile = "/etc/nsswitch.conf"

// nss asks the name service switch.
type nss struct {
	getent, id string // programs
}

func newNSS() *nss { return &nss{getent: systemTool("getent"), id: systemTool("id")} }

// systemTool is the path of a program of the system's own, whatever PATH is.
func systemTool(name string) string {
	for _, dir := range []string{"/usr/bin/", "/bin/", "/run/current-system/sw/bin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	return "/usr/bin/" + name // the error names it
}

// moreGroups is a look-up in every database, nil where files are all there is.
func moreGroups() func(ctx context.Context, uid string) ([]string, error) {
	if !beyondFiles(nssFile) {
		return nil
	}
	return newNSS().groups
}

// getentID is the id of a user ("passwd") or a group ("group") by name.
func getentID(database, name string) (string, error) {
	if name == "" || strings.HasPrefix(name, "-") || strings.ContainsAny(name, ":\n\x00") || !beyondFiles(nssFile) {
		return "", errors.New("not found")
	}
	ctx, cancel := context.WithTimeout(context.Background(), membersLimit)
	defer cancel()
	fields, err := newNSS().entry(ctx, database, name)
	if err != nil || fields[0] != name {
		return "", errors.New("not found")
	}
	return fields[2], nil
}

// beyondFiles reports whether users or groups may stand elsewhere than in
// files. A file that can't be read says nothing of it: they may.
func beyondFiles(path string) bool {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		database, sources, ok := strings.Cut(line, ":")
		switch strings.TrimSpace(database) {
		case "passwd", "group", "initgroups":
		default:
			continue
		}
		for _, s := range strings.Fields(sources) {
			if ok && s != "files" && !strings.HasPrefix(s, "[") && !strings.HasSuffix(s, "]") {
				return true
			}
		}
	}
	return false
}

// groups are the primary and supplementary groups of a user.
func (n *nss) groups(ctx context.Context, uid string) ([]string, error) {
	fields, err := n.entry(ctx, "passwd", uid)
	if err != nil {
		return nil, err
	}
	if fields[2] != uid { // a name of digits is somebody else's
		return nil, fmt.Errorf("there is no user %s", uid)
	}
	out, err := n.run(ctx, n.id, "-G", "--", fields[0])
	if err != nil {
		return nil, err
	}
	gids := strings.Fields(string(out))
	for _, g := range gids {
		if _, err := strconv.ParseUint(g, 10, 32); err != nil {
			return nil, fmt.Errorf("cannot read what id says: %q", g)
		}
	}
	return gids, nil
}

// entry is one line of a database; both kinds have the name first and the id
// third (passwd(5), group(5)).
func (n *nss) entry(ctx context.Context, database, key string) ([]string, error) {
	out, err := n.run(ctx, n.getent, database, key)
	if err != nil {
		return nil, err
	}
	line, _, _ := bufio.NewReader(bytes.NewReader(out)).ReadLine()
	fields := strings.Split(string(line), ":")
	if len(fields) < 4 {
		return nil, fmt.Errorf("cannot read what getent says of %s", key)
	}
	if _, err := strconv.ParseUint(fields[2], 10, 32); err != nil || fields[0] == "" || strings.HasPrefix(fields[0], "-") {
		return nil, fmt.Errorf("cannot read what getent says of %s", key)
	}
	return fields, nil
}

func (n *nss) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", name, err)
	}
	return out, nil
}

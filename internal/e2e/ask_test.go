//go:build !windows

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// handouts counts the hand-outs of a profile in the audit log.
func (w *world) handouts(profile string) (n int) {
	for _, e := range w.audit("--profile", profile, "--event", "handout") {
		n += max(1, e.Count)
	}
	return n
}

type auditEntry struct {
	Count                    int
	Event, Profile, Endpoint string
	Caller                   struct {
		UID, User, Program, Parent string
		PID                        int
	}
	AccessKeyID string `json:"access_key_id"`
	Reason      string
}

// audit is `keyfob audit --json` with more filters.
func (w *world) audit(args ...string) (all []auditEntry) {
	w.t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(w.must(nil, append([]string{"audit", "--json"}, args...)...).out), "\n") {
		var e auditEntry
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.t.Fatalf("%q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

type grantResult struct {
	ID, URL, Expires string
	Profiles         []string
	TokenFile        string `json:"token_file"`
	RelativeURI      string `json:"relative_uri"`
}

// grant makes a grant.
func (w *world) grant(args ...string) grantResult {
	w.t.Helper()
	return parseGrant(w.t, w.must(nil, append([]string{"grant", "add", "--json"}, args...)...).out)
}

func parseGrant(t testing.TB, out string) (g grantResult) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return g
}

// file reads a file by its absolute path.
func (w *world) file(path string) string {
	w.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// probed is what the program probe printed.
type probed struct {
	Status           int
	Retry, Body, Err string
}

// probe runs the program probe.
func (w *world) probe(args ...string) probed {
	w.t.Helper()
	return w.probeBy(nil, filepath.Join(bin, "probe"), args...)
}

// probeBy runs a copy of it, as another user where who says so.
func (w *world) probeBy(who *syscall.Credential, program string, args ...string) (p probed) {
	w.t.Helper()
	return w.probeAs(&syscall.SysProcAttr{Credential: who}, program, args...)
}

// probeAs runs it with attributes of its process.
func (w *world) probeAs(how *syscall.SysProcAttr, program string, args ...string) (p probed) {
	w.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.SysProcAttr = how
	r := w.finish(cmd)
	if err := json.Unmarshal([]byte(r.out), &p); err != nil {
		w.t.Fatalf("probe %v: exit %d, %q, %q", args, r.code, r.out, r.err)
	}
	return p
}

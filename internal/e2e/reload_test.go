//go:build !windows

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// eventually waits until ok says so: for what a daemon does by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within 15 s", what)
		}
	}
}

// TestAChangedFileIsSeen: without any command, the metadata endpoint serves
// the profile as the file now has it; a bad edit changes nothing and is
// shown; what did not change keeps its session.
func TestAChangedFileIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("config/keyfob/config.toml", imdsToml)
	good := w.read(".aws/config")
	w.write(".aws/config", "[profile base]\nregion = eu-central-1\n")
	w.addKeys("base")
	imds := w.imds()
	role := func() string {
		code, token := request(t, "PUT", imds+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
		if code != 200 {
			t.Fatalf("token: %d", code)
		}
		code, body := request(t, "GET", imds+"/latest/meta-data/iam/security-credentials/", "X-aws-ec2-metadata-token", token)
		if code != 200 {
			return fmt.Sprint(code)
		}
		return body
	}
	if got := role(); got != "404" {
		t.Fatalf("a profile that is not there has the role %q", got)
	}
	// Replaced by a rename, as editors do.
	w.write(".aws/config.new", good)
	if err := os.Rename(w.path(".aws/config.new"), w.path(".aws/config")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new profile is served", func() bool { return role() == "deploy" })
	eventually(t, "its session is fetched", func() bool { return w.aws.Count("AssumeRole") == 2 })

	w.write(".aws/config", good+"not a line of the grammar\n")
	eventually(t, "the bad edit is shown", func() bool { return strings.Contains(w.status().ReloadError, ".aws/config:") })
	if got := role(); got != "deploy" {
		t.Errorf("after a bad edit the role is %q", got)
	}
	w.write(".aws/config", good+"\n[profile more]\nregion = eu-west-3\n")
	eventually(t, "the good edit ends it", func() bool { return w.status().ReloadError == "" })
	if n := w.aws.Count("AssumeRole"); n != 2 {
		t.Errorf("the edits cost %d calls", n-2)
	}
}

// TestRulesAreReloaded: config.toml's rules hold from the next moment, by
// watching and by SIGHUP, and a broken one keeps the old.
func TestRulesAreReloaded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	w.credentials("deploy")
	denied := func() bool { return w.run(nil, "credential-process", "--profile", "deploy").code == 4 }
	if denied() {
		t.Fatal("denied without a rule")
	}
	w.write("config/keyfob/config.toml", "[[profile]]\nname = \"dep*\"\nallow_users = [\"54321\"]\n")
	eventually(t, "the rule holds", denied)
	r := w.run(nil, "credential-process", "--profile", "deploy")
	if strings.Contains(r.err, "54321") || strings.Contains(r.err, "dep*") {
		t.Errorf("the refusal tells about the rules: %q", r.err)
	}
	w.write("config/keyfob/config.toml", "[[profile]]\nnam = \"dep*\"\n")
	eventually(t, "the bad edit is shown", func() bool { return strings.Contains(w.status().ReloadError, "config.toml:2") })
	if !denied() {
		t.Error("a bad edit took the rule away")
	}
	w.write("config/keyfob/config.toml", "")
	if err := syscall.Kill(w.daemonPID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "without the rule", func() bool { return !denied() })
}

// TestOneDaemonForADataDirectory: another socket is no way around it.
func TestOneDaemonForADataDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(nil, "status")
	cmd := w.command(filepath.Join(bin, "keyfobd"), "run", "--socket", w.path("other"))
	r := w.finish(cmd)
	if r.code != 1 || !strings.Contains(r.err, w.path("data")) || !strings.Contains(r.err, fmt.Sprint(w.daemonPID())) {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
}

// TestKeysGoWhereTheyWereSent: a command that names another data directory
// than the running daemon's is refused, and nothing is stored.
func TestKeysGoWhereTheyWereSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(nil, "status")
	r := w.run(w.keysJSON(), "add", "base", "--data-dir", w.path("data2"))
	if r.code != 1 || !strings.Contains(r.err, w.path("data2")) || !strings.Contains(r.err, w.path("data")+"\n") {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	if out := w.must(nil, "list", "--json").out; strings.Contains(out, "static-keys") {
		t.Errorf("the keys were stored: %s", out)
	}
}

// TestRootIsAllowedForOnePair: what --allow-root said of one pair does not
// hold for the next.
func TestRootIsAllowedForOnePair(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, secret := w.aws.AddUser(fakeaws.UserSpec{Root: true})
	root := []byte(fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":%q}`, id, secret))
	if r := w.run(root, "add", "p"); r.code != 1 || !strings.Contains(r.err, "root") {
		t.Errorf("without the flag: exit %d, %q", r.code, r.err)
	}
	w.must(root, "add", "p", "--allow-root")
	if _, err := os.Stat(w.path("data/vault/allow-root+p.rec")); err != nil {
		t.Fatalf("where is it noted: %v", err)
	}
	w.must(w.keysJSON(), "add", "p", "--force")
	if _, err := os.Stat(w.path("data/vault/allow-root+p.rec")); err == nil {
		t.Error("root stays allowed for the next pair")
	}
}

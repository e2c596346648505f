package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestCallersFromElsewhere: a process of the same user in another pid, mount
// or user namespace is nobody, at the port and on the socket.
func TestCallersFromElsewhere(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root makes pid and mount namespaces")
	}
	w := newWorld(t)
	w.write("config/keyfob/config.toml", imdsToml+containerToml)
	w.addKeys("base")
	w.credentials("deploy")
	imds, g := w.imds(), w.grant("deploy")
	relative := w.grant("deploy", "--relative")
	probe := filepath.Join(bin, "probe")
	path := strings.TrimSuffix(g.URL, "/v1/credentials/deploy") + relative.RelativeURI
	_, token, err := fetch(httpClient(false), "PUT", imds+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if err != nil {
		t.Fatal(err)
	}
	self := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	for name, how := range map[string]*syscall.SysProcAttr{
		"here":                    {},
		"another pid namespace":   {Cloneflags: syscall.CLONE_NEWPID},
		"another mount namespace": {Cloneflags: syscall.CLONE_NEWNS},
		"another user namespace":  {Cloneflags: syscall.CLONE_NEWUSER, UidMappings: self, GidMappings: self},
	} {
		t.Run(name, func(t *testing.T) {
			for what, args := range map[string][]string{
				"metadata":       {"imds", imds},
				"a stolen token": {"get", imds + credentialsPath, "X-aws-ec2-metadata-token", string(token)},
				"a stolen grant": {"get", g.URL, "Authorization", w.file(g.TokenFile)},
				"a path":         {"get", path},
				"the socket":     {"control", w.path("s"), "deploy", w.env["AWS_ENDPOINT_URL"]},
			} {
				attr := *how
				p := w.probeAs(&attr, probe, args...)
				if name == "here" {
					if !strings.Contains(p.Body, "SecretAccessKey") {
						t.Errorf("%s: %+v", what, p)
					}
					continue
				}
				nothing(t, what, p)
				if what != "the socket" && (p.Status < 400 || p.Status > 499) {
					t.Errorf("%s: %+v", what, p)
				}
			}
		})
	}
}

// TestAKilledExec: when keyfob exec is killed, its child's grant ends, and
// what it left behind is removed.
func TestAKilledExec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	out := w.path("child")
	cmd := w.command(w.keyfob(), "exec", "deploy", "--", "sh", "-c", fmt.Sprintf("echo $$ $AWS_CONTAINER_CREDENTIALS_FULL_URI $AWS_CONTAINER_AUTHORIZATION_TOKEN >%[1]s.new; mv %[1]s.new %[1]s; exec sleep 60", out))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child runs", func() bool { _, err := os.Stat(out); return err == nil })
	f := strings.Fields(w.read("child"))
	child, err := strconv.Atoi(f[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
	if status, _, err := fetch(httpClient(false), "GET", f[1], "Authorization", f[2]); err != nil || status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the grant ends", func() bool {
		status, _, err := fetch(httpClient(false), "GET", f[1], "Authorization", f[2])
		return err == nil && status == 401
	})
	eventually(t, "its files are removed", func() bool {
		dirs, err := filepath.Glob(w.path("data/exec/run-*"))
		return err == nil && len(dirs) == 0
	})
	// And while no daemon runs: the next one finds it gone.
	_ = os.Remove(out)
	cmd = w.command(w.keyfob(), "exec", "deploy", "--", "sh", "-c", fmt.Sprintf("echo $$ >%[1]s.new; mv %[1]s.new %[1]s; exec sleep 60", out))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child runs", func() bool { _, err := os.Stat(out); return err == nil })
	second, err := strconv.Atoi(strings.TrimSpace(w.read("child")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(second, syscall.SIGKILL) }()
	w.killDaemon()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the next daemon drops the grant", func() bool {
		return !strings.Contains(w.must(nil, "grant", "list", "--json").out, `"id"`)
	})
}

// TestGrantsOfAProtectedProfile: a person confirms the grant, and then its
// client is asked no more; one that was made before the profile was protected
// opens it no longer, on a kept connection too.
func TestGrantsOfAProtectedProfile(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	w := newWorld(t)
	w.env["KEYFOB_INTERACTIVE"] = ""
	plain := fmt.Sprintf("[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:%d\"\nprofile = \"deploy\"\n%s", quietPort(t), containerToml)
	w.write("config/keyfob/config.toml", plain)
	w.addKeys("base")
	w.credentials("deploy")
	before := w.grant("deploy")
	client := &containerCaller{url: before.URL, tokenFile: before.TokenFile, client: httpClient(true)}
	w.session(client.ask())
	m := &metadataCaller{url: w.imds(), role: "deploy", client: httpClient(true)}
	w.session(m.ask())

	w.write("config/keyfob/config.toml", plain+"[[profile]]\nname = \"deploy\"\nprotected = true\n")
	w.must(nil, "reload")
	if a := client.ask(); a.Status != 403 || a.ID != "" {
		t.Errorf("a grant from before: %d %s", a.Status, a.Err)
	}
	if a := m.ask(); a.Status != 503 || a.ID != "" {
		t.Errorf("a kept connection of the metadata endpoint: %d %s", a.Status, a.Err)
	}
	if r := w.run(nil, "grant", "add", "deploy"); r.code != 3 || r.out != "" {
		t.Errorf("a grant without a person: exit %d, %q, %q", r.code, r.out, r.err)
	}
	if r := w.run(nil, "grant", "add", "entry,deploy"); r.code != 3 || r.out != "" {
		t.Errorf("a grant that also names it: exit %d, %q, %q", r.code, r.out, r.err)
	}
	if r := w.run(nil, "exec", "deploy", "--", "true"); r.code != 3 {
		t.Errorf("exec without a person: exit %d, %q", r.code, r.err)
	}

	wait := c.run(w.command(w.keyfob(), "grant", "add", "deploy", "--json"))
	c.expect("1 to 4")
	c.typed("once\n")
	r := wait()
	if r.code != 0 {
		t.Fatalf("exit %d, %q", r.code, r.err)
	}
	after := parseGrant(t, r.out)
	confirmed := &containerCaller{url: after.URL, tokenFile: after.TokenFile, client: httpClient(true)}
	for range 3 {
		w.session(confirmed.ask())
	}
	one, _ := w.twoPrograms(t)
	script := fmt.Sprintf("%s get \"$AWS_CONTAINER_CREDENTIALS_FULL_URI\" Authorization \"$AWS_CONTAINER_AUTHORIZATION_TOKEN\"", one)
	wait = c.run(w.command(w.keyfob(), "exec", "deploy", "--", "sh", "-c", script+"; "+script))
	c.expect("1 to 4")
	c.typed("once\n")
	if r := wait(); r.code != 0 || strings.Count(r.out, "SecretAccessKey") != 2 {
		t.Errorf("exec: exit %d, %q, %q", r.code, r.out, r.err)
	}
	wait = c.run(w.command(w.keyfob(), "exec", "deploy", "--", "touch", w.path("ran")))
	c.expect("1 to 4")
	c.typed("no\n")
	if r := wait(); r.code != 4 {
		t.Errorf("exec, no: exit %d, %q", r.code, r.err)
	}
	if _, err := os.Stat(w.path("ran")); err == nil {
		t.Error("the program was run after a no")
	}
	w.session(confirmed.ask())

	// What runs a program could also write to its input: that is no answer,
	// and does not keep the person from giving one.
	_, two := w.twoPrograms(t)
	ask := func() probed { return w.probeBy(nil, two, "imds", m.url) }
	if p := ask(); p.Status != 503 {
		t.Errorf("%+v", p)
	}
	if r := w.run([]byte("always\n"), "answer"); r.code != 3 {
		t.Errorf("answered by standard input: exit %d, %q", r.code, r.err)
	}
	if p := ask(); p.Status != 503 {
		t.Errorf("after an answer by standard input: %+v", p)
	}
	id := ""
	for _, i := range w.status().Interactions {
		if i.Profile == "deploy" {
			id = i.ID
		}
	}
	if r := w.answer(t, c, id, "hour"); r.code != 0 {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	if r := w.run(nil, "answer", "no-such"); r.code != 1 {
		t.Errorf("an answer to no question: exit %d, %q", r.code, r.err)
	}
}

//go:build !windows

package daemon

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/audit"
	"keyfob/internal/control"
	"keyfob/internal/cred"
)

// tree is what a directory holds, by name.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		st, serr := os.Stat(path)
		if err == nil && serr == nil {
			files[strings.TrimPrefix(path, dir)] = fmt.Sprint(st.Mode(), st.ModTime().UnixNano(), string(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestANewerVaultIsRefusedUnharmed: an older daemon over the vault of a newer
// one says so, ends, and leaves it as it was, to the byte.
func TestANewerVaultIsRefusedUnharmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	w.must(control.MethodAdd, control.AddParams{Context: w.context(""), Profile: "kept", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "CANARY"}, nil)
	w.must(control.MethodStop, nil, nil)
	<-w.done
	header := w.read("data/vault/vault.json")
	var h map[string]any
	if err := json.Unmarshal([]byte(header), &h); err != nil || h["version"] == nil {
		t.Fatalf("%q, %v", header, err)
	}
	h["version"], h["of_the_future"] = 1000, map[string]any{"kdf": "unheard of"}
	newer, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	w.write("data/vault/vault.json", string(newer))
	before := tree(t, w.path("data/vault"))
	for range 2 {
		out, code := w.once("run")
		if code != 1 || !strings.Contains(out, "newer version of keyfob") || !strings.Contains(out, "hint: ") {
			t.Errorf("exit %d, %s", code, out)
		}
	}
	if after := tree(t, w.path("data/vault")); !mapsEqual(before, after) {
		t.Errorf("the vault was %q and is %q", before, after)
	}
	w.write("data/vault/vault.json", header)
	w.start()
	w.eventually("the vault opens under its own header", func() bool {
		var list control.ListResult
		w.must(control.MethodList, control.ProfileParams{Context: w.context("")}, &list)
		return slices.ContainsFunc(list.Profiles, func(e control.ListEntry) bool { return e.Name == "kept" && e.KeyAdded != "" })
	})
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// TestAnOlderVaultIsRead: testdata/vault-v1 was written by the first release
// of the format, with the passphrase CANARY-passphrase. It is never made anew.
func TestAnOlderVaultIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := os.CopyFS(w.path("data/vault"), os.DirFS("testdata/vault-v1")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"data", "data/vault"} {
		if err := os.Chmod(w.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name := range tree(t, w.path("data/vault")) {
		if err := os.Chmod(w.path("data/vault"+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.write(".aws/credentials", "")
	w.write(".aws/config", "[profile old]\nregion = eu-west-1\n[profile app]\nregion = eu-west-1\nsource_profile = old\nrole_arn = arn:aws:iam::222222222222:role/app\n")
	w.start()
	var got control.CredentialsResult
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("app")}, &got)
	if !strings.HasPrefix(got.AccessKeyID, "ASIAAPP") {
		t.Errorf("%+v", got)
	}
	if s := w.status(); s.Keystore.Locked || len(s.Warnings) > 0 {
		t.Errorf("%+v", s)
	}
}

// TestProtocolVersions: a client of another version is told which is which; a
// word that the daemon does not know is told too, and the connection goes on.
func TestProtocolVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	say := func(lines string) []map[string]any {
		t.Helper()
		c, err := net.Dial("unix", w.path("s"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, lines); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.UnixConn).CloseWrite()
		var all []map[string]any
		for s := bufio.NewScanner(c); s.Scan(); {
			var m map[string]any
			if err := json.Unmarshal(s.Bytes(), &m); err != nil {
				t.Fatalf("%q: %v", s.Text(), err)
			}
			all = append(all, m)
		}
		return all
	}
	for _, version := range []int{2, 1000} {
		got := say(fmt.Sprintf("{\"keyfob\":%d,\"version\":\"9.9.9\",\"more\":{}}\n{\"id\":1,\"method\":\"version\"}\n", version))
		if len(got) != 2 || got[0]["keyfob"] != float64(control.Version) {
			t.Fatalf("%v", got)
		}
		e, _ := got[1]["error"].(map[string]any)
		if e["code"] != string(control.CodeProtocol) || !strings.Contains(fmt.Sprint(e["message"]), fmt.Sprintf("version %d of the control protocol and keyfob speaks %d", control.Version, version)) || !strings.Contains(fmt.Sprint(e["message"]), "0.0.0-test") {
			t.Errorf("%v", got)
		}
	}
	got := say("{\"keyfob\":1,\"version\":\"9.9.9\",\"more\":[]}\n{\"id\":1,\"method\":\"of-the-future\",\"params\":{}}\n{\"id\":2,\"method\":\"version\",\"params\":{\"of_the_future\":1},\"more\":2}\n")
	if len(got) != 3 || !strings.Contains(fmt.Sprint(got[1]["error"]), "does not know it") || got[2]["result"] == nil {
		t.Errorf("%v", got)
	}

	// The other way: a daemon of the future answers this client.
	path := w.path("future")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, "{\"keyfob\":2,\"version\":\"9.9.9\",\"pid\":77}\n{\"id\":0,\"error\":{\"code\":\"protocol\",\"message\":\"x\"}}\n")
			_ = c.Close()
		}
	}()
	c, err := control.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Version = "1.0.0"
	if err := c.Call(t.Context(), control.MethodVersion, control.Empty{}, nil, nil); code(err) != control.CodeProtocol ||
		!strings.Contains(err.Error(), "keyfobd 9.9.9 (pid 77): it speaks version 2 of the control protocol and keyfob 1.0.0 speaks 1") {
		t.Errorf("%v", err)
	}
}

// TestMakeRoom: a service that starts ends the daemon on demand, whose session
// it then has; one in the foreground is left alone.
func TestMakeRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	room := makeRoom(nil, func(name string) string { return environment(w.env)[name] }, "1.0.0")
	if err := room(t.Context()); err != nil {
		t.Errorf("where no daemon runs: %v", err)
	}
	w.start()
	if err := room(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprint(w.pid)) || hintOf(err) == "" {
		t.Errorf("a daemon in the foreground: %v", err)
	}
	w.must(control.MethodStop, nil, nil)
	<-w.done
	w.start("--on-demand")
	var before, after control.CredentialsResult
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("app")}, &before)
	if err := room(t.Context()); err != nil {
		t.Fatal(err)
	}
	if hasDaemon(w.path("data")) {
		t.Error("the data directory is not free")
	}
	select {
	case <-w.done:
	case <-time.After(5 * time.Second):
		t.Fatal("the daemon on demand goes on")
	}
	w.start("--service")
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("app")}, &after)
	if before.AccessKeyID != after.AccessKeyID || len(w.sts.asked("app")) != 1 {
		t.Errorf("the session was %s and is %s, after %d calls", before.AccessKeyID, after.AccessKeyID, len(w.sts.asked("app")))
	}
}

// TestTheLogOfADaemonOnDemandIsPutAside: and what a panic would write goes to
// the new file.
func TestTheLogOfADaemonOnDemandIsPutAside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("data/keyfobd.log", strings.Repeat("old line\n", 480_000)) // 4.3 MB
	if err := os.Chmod(w.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(w.path("data/keyfobd.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "keyfobd"), "run", "--on-demand")
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(w.env, "GOTRACEBACK=all"), w.home, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = log.Close()
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	w.eventually("it serves", func() bool { return w.try(control.MethodVersion, nil, nil) == nil })
	if now := w.read("data/keyfobd.log"); !strings.Contains(now, "keyfobd is ready") || strings.Contains(now, "old line") {
		t.Errorf("the log has %d bytes: %.200s", len(now), now)
	}
	if old := w.read("data/keyfobd.log.1"); !strings.HasPrefix(old, "old line") || strings.Contains(old, "keyfobd is ready") {
		t.Errorf("the one put aside has %d bytes", len(old))
	}
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if now := w.read("data/keyfobd.log"); !strings.Contains(now, "SIGQUIT") {
		t.Errorf("what the runtime says is not in the log: %.300s", now)
	}
}

// TestJournalPriorities: under journald each line of the log says what it is
// worth; elsewhere none does.
func TestJournalPriorities(t *testing.T) {
	t.Parallel()
	for _, journal := range []bool{true, false} {
		w := newWorld(t)
		file, err := os.OpenFile(w.path("stream"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		st, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		env := w.env
		if journal {
			env = append(slices.Clone(env), fmt.Sprintf("JOURNAL_STREAM=%d:%d", sys.Dev, sys.Ino))
		} else {
			env = append(slices.Clone(env), "JOURNAL_STREAM=1:2")
		}
		w.write("config/keyfob/config.toml", "log.level = 'debug'\n")
		cmd := exec.Command(filepath.Join(bin, "keyfobd"), "run", "--service")
		cmd.Env, cmd.Dir, cmd.Stderr = env, w.home, file
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		w.eventually("it serves", func() bool { return w.try(control.MethodVersion, nil, nil) == nil })
		w.config("log.level = 'info'\nlog.format = 'text'\n") // the prefix outlives another format
		w.must(control.MethodReload, nil, nil)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		for _, line := range strings.Split(strings.TrimSpace(w.read("stream")), "\n") {
			if has := strings.HasPrefix(line, "<6>") || strings.HasPrefix(line, "<4>") || strings.HasPrefix(line, "<7>"); has != journal {
				t.Errorf("journal %v: %q", journal, line)
			}
		}
	}
}

// TestValidateTellsEverything: all that is wrong in one run, with file and
// line, for people and for programs.
func TestValidateTellsEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config(`keystroke = "pass"
interactive = "sometimes"
[[endpoint]]
kind = "imds"
listen = "0.0.0.0:80"
policy = "none.json"
profile = "base"
[[profile]]
name = "x"
allow_users = ["no-such-user-here"]
[audit]
syslog = "ftp://x"
`)
	out, code := w.once("validate", "--json")
	var f struct {
		OK       bool
		Problems []struct {
			File, Message, Hint string
			Line                int
		}
	}
	b, _, _ := strings.Cut(out, "keyfobd: ") // standard error follows
	if err := json.Unmarshal([]byte(b), &f); err != nil || f.OK || code != 1 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	var lines []int
	for _, p := range f.Problems {
		lines = append(lines, p.Line)
		if p.File != w.path("config/keyfob/config.toml") || p.Message == "" {
			t.Errorf("%+v", p)
		}
	}
	slices.Sort(lines)
	if !slices.Equal(lines, []int{1, 2, 5, 6, 10, 12}) {
		t.Errorf("problems in the lines %v: %s", lines, out)
	}
	text, code := w.once("validate")
	if code != 1 || strings.Count(text, "error: "+w.path("config/keyfob/config.toml:")) != 6 || !strings.Contains(text, "6 problems") {
		t.Errorf("exit %d, %s", code, text)
	}
	if _, code := w.once("validate", "--yaml"); code != 2 {
		t.Errorf("wrong usage is exit %d", code)
	}
	w.write("config/keyfob/ro.json", readOnly)
	w.config(endpointToml("127.0.0.1:9911", "base") + "policy = 'ro.json'\n[[profile]]\nname = 'base'\nsession_policy_arns = ['" + readOnlyARN + "']\n")
	w.write(".aws/config", w.read(".aws/config")+"[profile broken]\nrole_arn = x\n")
	out, code = w.once("validate", "--json")
	if code != 0 || !strings.Contains(out, `"ok": true`) || !strings.Contains(out, "two") && !strings.Contains(out, "session polic") || !strings.Contains(out, "broken") {
		t.Errorf("exit %d, %s", code, out)
	}
	w.config(endpointToml("127.0.0.1:9911", "base") + "policy = 'ro.json'\n")
	if out, code = w.once("validate"); code != 0 || !strings.Contains(out, "keeps the profile base from being handed out") {
		t.Errorf("a policy that base can't carry: exit %d, %s", code, out)
	}
	w.config(endpointToml(freePort(t), "base") + "policy = 'ro.json'\n")
	w.start()
	if s := w.status(); !slices.ContainsFunc(s.Warnings, func(text string) bool { return strings.Contains(text, "keeps the profile base from being handed out") }) {
		t.Errorf("status warns of %q", s.Warnings)
	}
}

// TestAYesIsInTheAuditLog: who let which program have a protected profile.
func TestAYesIsInTheAuditLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config("[[profile]]\nname = 'two'\nprotected = true\n")
	w.start()
	c := w.context("two")
	c.MayAsk = true
	var seen []control.Prompt
	if err := w.asking(control.MethodCredentials, control.CredentialsParams{Context: c}, nil, answering(cred.ConfirmHour, &seen)); err != nil {
		t.Fatal(err)
	}
	var r control.AuditResult
	w.eventually("the entry is there", func() bool {
		w.must(control.MethodAudit, control.AuditParams{Event: audit.EventConfirmation}, &r)
		return len(r.Entries) == 1
	})
	var e struct {
		Profile, Reason string
		Caller          struct{ UID, Program string }
	}
	if err := json.Unmarshal(r.Entries[0], &e); err != nil || e.Profile != "two" || !strings.Contains(e.Reason, cred.ConfirmHour) || !strings.Contains(e.Reason, seen[0].Program) ||
		e.Caller.UID != fmt.Sprint(os.Geteuid()) {
		t.Errorf("%s, %v", r.Entries[0], err)
	}
}

// TestADeniedProgramIsNamed: the log names the program behind keyfob.
func TestADeniedProgramIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config("[[profile]]\nname = 'two'\nallow_programs = ['/bin/none']\n")
	w.start()
	if err := w.try(control.MethodCredentials, control.CredentialsParams{Context: w.context("two")}, nil); code(err) != control.CodeDenied {
		t.Fatal(err)
	}
	parent, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", os.Getppid()))
	if err != nil {
		t.Skip("no /proc here")
	}
	w.eventually("it is logged", func() bool { return strings.Contains(w.log.String(), "caller is denied") })
	if !strings.Contains(w.log.String(), fmt.Sprintf(`"program":%q`, parent)) {
		t.Errorf("the log does not name %s", parent)
	}
}

// TestTheConsoleIsOpenedOnce: what stands in the opener's arguments is good
// for one browser.
func TestTheConsoleIsOpenedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	federation := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, `{"SigninToken":"CANARY-signin"}`)
	}))
	defer federation.Close()
	w.env = append(w.env, "KEYFOB_FEDERATION_ENDPOINT="+federation.URL+"/federation")
	w.start()
	var plain, once control.ConsoleResult
	w.must(control.MethodConsole, control.ConsoleParams{Context: w.context("app")}, &plain)
	w.must(control.MethodConsole, control.ConsoleParams{Context: w.context("app"), Open: true}, &once)
	if !strings.Contains(plain.URL, "CANARY-signin") || strings.Contains(once.URL, "CANARY") || !strings.HasPrefix(once.URL, "http://127.0.0.1:") {
		t.Fatalf("%s, %s", plain.URL, once.URL)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(once.URL)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.Contains(resp.Header.Get("Location")+string(body), "CANARY-signin") {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	if resp, err = client.Get(once.URL); err == nil {
		body, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if strings.Contains(fmt.Sprint(resp.Header)+string(body), "CANARY") {
			t.Errorf("a second time: %v %s", resp.Header, body)
		}
	}
}

// TestListTellsWhatIsMissing: a sign-in that nobody has made, and when a pair
// was stored.
func TestListTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(".aws/config", w.read(".aws/config")+"[profile portal]\nsso_start_url = https://example.awsapps.com/start\nsso_region = eu-west-1\nsso_account_id = 111111111111\nsso_role_name = x\n")
	w.start()
	began := time.Now().Add(-time.Second)
	w.must(control.MethodAdd, control.AddParams{Context: w.context(""), Profile: "kept", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "CANARY"}, nil)
	entries := func() map[string]control.ListEntry {
		t.Helper()
		var list control.ListResult
		w.must(control.MethodList, control.ProfileParams{Context: w.context("")}, &list)
		m := map[string]control.ListEntry{}
		for _, e := range list.Profiles {
			m[e.Name] = e
		}
		return m
	}
	m := entries()
	if m["portal"].Missing != "keyfob login portal" || m["app"].Missing != "" || m["kept"].Missing != "" || m["base"].KeyAdded != "" {
		t.Errorf("%+v", m)
	}
	if at, err := time.Parse(time.RFC3339, m["kept"].KeyAdded); err != nil || at.Before(began.Truncate(time.Second)) || time.Until(at) > time.Second {
		t.Errorf("kept was added at %q", m["kept"].KeyAdded)
	}
	w.must(control.MethodLock, nil, nil)
	if m = entries(); m["kept"].Missing != "keyfob unlock" || m["app"].Missing != "" {
		t.Errorf("locked: %+v", m)
	}
}

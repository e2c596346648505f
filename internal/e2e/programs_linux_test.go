package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// twoPrograms are copies of probe at two places.
func (w *world) twoPrograms(t *testing.T) (one, two string) {
	t.Helper()
	var made [2]string
	for i, name := range []string{"one", "two"} {
		if err := os.MkdirAll(w.path("programs"), 0o755); err != nil {
			t.Fatal(err)
		}
		path, err := filepath.EvalSymlinks(w.path("programs"))
		if err != nil {
			t.Fatal(err)
		}
		made[i] = copyProgram(t, filepath.Join(bin, "probe"), filepath.Join(path, name))
	}
	return made[0], made[1]
}

// through runs `keyfob credential-process` as a child of a program.
func (w *world) through(program, profile string) result {
	w.t.Helper()
	return w.finish(w.command(program, "run", w.keyfob(), "credential-process", "--profile", profile))
}

// change appends bytes to a program: another content at the same place.
func change(t *testing.T, program string) {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, append(b, "changed"...), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestRulesByProgram: by path and by content, at a metadata endpoint, with a
// grant and on the control socket, where keyfob's parent is the program.
func TestRulesByProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.twoPrograms(t)
	sum := func(program string) string {
		b, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(b))
	}
	imdsAt, containerAt := fmt.Sprintf("127.0.0.1:%d", quietPort(t)), fmt.Sprintf("127.0.0.1:%d", quietPort(t))
	rules := func(endpoint, profile string) {
		t.Helper()
		w.write("config/keyfob/config.toml", fmt.Sprintf("[[endpoint]]\nkind = \"imds\"\nlisten = %q\nprofile = \"deploy\"\n%s\n[[endpoint]]\nkind = \"container\"\nlisten = %q\n%s\n[[profile]]\nname = \"deploy\"\n%s\n",
			imdsAt, endpoint, containerAt, endpoint, profile))
		if w.daemonPID() != 0 {
			w.must(nil, "reload")
		}
	}
	rules("", "")
	w.addKeys("base")
	w.credentials("deploy")
	g := w.grant("deploy")
	token := w.file(g.TokenFile)
	check := func(when string, program string, endpoint, socket bool) {
		t.Helper()
		for what, p := range map[string]probed{"metadata": w.probeBy(nil, program, "imds", "http://"+imdsAt), "grant": w.probeBy(nil, program, "get", g.URL, "Authorization", token)} {
			if ok := w.whose(p) == "deploy"; ok != endpoint || !ok && p.Status != 403 {
				t.Errorf("%s: %s of %s: %+v", when, what, filepath.Base(program), p)
			}
		}
		if r := w.through(program, "deploy"); (r.code == 0) != socket || r.code != 0 && (r.code != 4 || r.out != "") {
			t.Errorf("%s: credential-process of %s: exit %d, %q, %q", when, filepath.Base(program), r.code, r.out, r.err)
		}
	}
	check("no rule", one, true, true)
	check("no rule", two, true, true)

	rules(fmt.Sprintf("allow_programs = [%q]", one), "")
	check("endpoint's, by path", one, true, true)
	check("endpoint's, by path", two, false, true)

	rules("", fmt.Sprintf("allow_programs = [%q]", one))
	check("profile's, by path", one, true, true)
	check("profile's, by path", two, false, false)
	// A child of the program is another program.
	if r := w.finish(w.command(one, "run", two, "run", w.keyfob(), "credential-process", "--profile", "deploy")); r.code != 4 {
		t.Errorf("a child of the program: exit %d, %q", r.code, r.err)
	}
	if r := w.run(nil, "credential-process", "--profile", "deploy"); r.code != 4 {
		t.Errorf("the test itself: exit %d, %q", r.code, r.err)
	}

	rules("", fmt.Sprintf("allow_programs = [%q, {path = %q, sha256 = %q}]", one, two, sum(two)))
	check("by content", two, true, true)
	change(t, two)
	check("by content, changed", two, false, false)
	check("by path, beside it", one, true, true)
	rules("", fmt.Sprintf("allow_programs = [{path = %q, sha256 = %q}]", two, sum(two)))
	check("by its new content", two, true, true)
	check("by its new content", one, false, false)
	rules(fmt.Sprintf("allow_programs = [%q]", one), fmt.Sprintf("allow_programs = [%q]", two))
	check("both must say yes", one, false, false)
	check("both must say yes", two, false, true)

	// A renamed program, and a link to it, are what they are.
	rules("", fmt.Sprintf("allow_programs = [%q]", one))
	link := filepath.Join(filepath.Dir(one), "link")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	check("by a link", link, true, true)
	rules("", fmt.Sprintf("allow_programs = [%q]", link))
	check("the rule names a link", one, true, true)

	eventually(t, "the refusals and hand-outs name the programs", func() bool {
		return len(w.audit("--event", "refusal", "--program", two)) > 0 && len(w.audit("--event", "handout", "--program", one)) > 0
	})
}

// TestTheAuditLeadsToTheProgram: from the access key id that AWS logs to the
// program on this machine; a credential_process caller is keyfob's parent;
// and a line that somebody changed is found.
func TestTheAuditLeadsToTheProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.twoPrograms(t)
	w.write("config/keyfob/config.toml", imdsToml)
	w.addKeys("base")
	doc := w.parse(w.through(one, "entry"))
	a := answer{ID: doc.AccessKeyId, Secret: doc.SecretAccessKey, Token: doc.SessionToken, Expires: doc.Expiration}
	if err := identity(w.url, a); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the endpoint's profile is warm", func() bool { return w.probe("imds", w.imds()).Status == 200 })
	if p := w.probeBy(nil, two, "imds", w.imds()); w.whose(p) != "deploy" {
		t.Fatalf("%+v", p)
	}
	seen := ""
	for _, c := range w.aws.Calls("GetCallerIdentity") {
		if strings.Contains(c.Principal, "assumed-role/entry/") {
			seen = c.AccessKey
		}
	}
	if seen == "" {
		t.Fatal("AWS has not seen the call")
	}
	var found []auditEntry
	eventually(t, "the id leads to an entry", func() bool {
		found = w.audit("--access-key-id", seen)
		return len(found) > 0
	})
	if len(found) != 1 || found[0].Caller.Program != one || found[0].Caller.UID != fmt.Sprint(os.Getuid()) || found[0].Profile != "entry" || found[0].Event != "handout" {
		t.Errorf("%+v", found)
	}
	// Who started the program is looked up behind the answer: of one that has
	// ended by then it is not known, but it is never somebody else.
	if self, _ := os.Executable(); found[0].Caller.Parent != self && found[0].Caller.Parent != "" {
		t.Errorf("the program's parent is %q, and was %q", found[0].Caller.Parent, self)
	}
	for _, e := range w.audit() {
		if e.Caller.Program == w.keyfob() {
			t.Errorf("keyfob itself is said to be the caller: %+v", e)
		}
	}
	eventually(t, "the metadata client's entry", func() bool { return len(w.audit("--program", two)) == 1 })
	if text := w.must(nil, "audit", "--access-key-id", seen).out; !strings.Contains(text, one) || !strings.Contains(text, seen) {
		t.Errorf("for people: %q", text)
	}

	if r := w.must(nil, "audit", "verify"); !strings.Contains(r.out, "whole") {
		t.Errorf("%q", r.out)
	}
	log := w.read("data/audit.jsonl")
	for _, secret := range []string{doc.SecretAccessKey, doc.SessionToken, w.secret} {
		if strings.Contains(log, secret) {
			t.Error("the audit log holds a secret")
		}
	}
	// The first entry, one in the middle and the last are equally held.
	good := strings.SplitAfter(strings.TrimSuffix(log, "\n"), "\n")
	rewrite := func(lines []string) {
		f, err := os.OpenFile(w.path("data/audit.jsonl"), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(strings.Join(lines, "") + "\n")
		if cerr := f.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
	}
	for i := range good {
		lines := slices.Clone(good)
		lines[i] = strings.Replace(lines[i], "\"count\":1", "\"count\":2", 1)
		if lines[i] == good[i] {
			t.Fatalf("what is to be changed in %q", good[i])
		}
		rewrite(lines)
		// A change shows where the next line does not fit.
		r := w.run(nil, "audit", "verify")
		if r.code != 1 || !strings.Contains(r.err, fmt.Sprintf("audit.jsonl:%d:", i+1)) && !strings.Contains(r.err, fmt.Sprintf("audit.jsonl:%d:", i+2)) {
			t.Errorf("after a change of line %d of %d: exit %d, %q, %q", i+1, len(good), r.code, r.out, r.err)
		}
	}
	rewrite(good[:len(good)-1])
	if r := w.run(nil, "audit", "verify"); r.code != 1 {
		t.Errorf("with the last line gone: exit %d, %q, %q", r.code, r.out, r.err)
	}
	rewrite(good)
	w.must(nil, "audit", "verify")
}

// protectedWorld has deploy as a protected profile at a metadata endpoint.
func protectedWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.env["KEYFOB_INTERACTIVE"] = ""
	w.write("config/keyfob/config.toml", fmt.Sprintf("[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:%d\"\nprofile = \"deploy\"\n[[profile]]\nname = \"deploy\"\nprotected = true\n", quietPort(t)))
	w.addKeys("base")
	eventually(t, "the session is fetched", func() bool { return w.aws.Count("AssumeRole") >= 2 })
	return w
}

// TestAProtectedProfileAtAnEndpoint: its first use by a program waits for a
// person, who says once, for an hour, always, or no.
func TestAProtectedProfileAtAnEndpoint(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	w := protectedWorld(t)
	one, two := w.twoPrograms(t)
	imds := w.imds()
	ask := func(program string) probed { return w.probeBy(nil, program, "imds", imds) }
	waits := func(what, program string) {
		t.Helper()
		p := ask(program)
		nothing(t, what, p)
		if p.Status != 503 || p.Retry == "" {
			t.Errorf("%s: %+v", what, p)
		}
	}
	served := func(what, program string) {
		t.Helper()
		if p := ask(program); w.whose(p) != "deploy" {
			t.Errorf("%s: %+v", what, p)
		}
	}
	open := func(n int) string {
		t.Helper()
		var s status
		eventually(t, fmt.Sprintf("%d questions wait", n), func() bool { s = w.status(); return len(s.Interactions) == n })
		if n == 0 {
			return ""
		}
		if i := s.Interactions[0]; i.Kind != "confirm" || i.Profile != "deploy" {
			t.Errorf("%+v", i)
		}
		return s.Interactions[0].ID
	}
	say := func(id, word string, code int) {
		t.Helper()
		if r := w.answer(t, c, id, word); r.code != code {
			t.Errorf("answer %s: exit %d, %q", word, r.code, r.err)
		}
	}

	waits("the first time", one)
	waits("again", one)
	id := open(1)
	say(id, "once", 0)
	served("once", one)
	waits("after once", one)
	say(open(1), "hour", 0)
	served("hour", one)
	served("hour, again", one)
	waits("another program", two)
	say(open(1), "always", 0)
	served("always", two)
	// always outlives the daemon; an hour is its memory's.
	w.must(nil, "stop")
	w.waitStopped()
	w.must(nil, "status")
	eventually(t, "always, after a restart", func() bool { return w.whose(ask(two)) == "deploy" })
	waits("an hour, after a restart", one)
	say(open(1), "no", 0)
	if p := ask(one); p.Status != 403 {
		t.Errorf("after a no: %+v", p)
		nothing(t, "after a no", p)
	}
	open(0)
	// One that was replaced is another program.
	change(t, two)
	waits("changed", two)
	open(1)
	// logout takes back what was answered.
	say("", "always", 0)
	served("always, anew", two)
	w.must(nil, "logout", "deploy")
	eventually(t, "it is asked about again after logout", func() bool { return ask(two).Status == 503 && len(w.status().Interactions) == 1 })

	// A question that waits is no refusal; a no is one.
	eventually(t, "hand-outs and the refusal are in the audit log", func() bool {
		return w.count("handout", one) == 3 && w.count("handout", two) == 3 && w.count("refusal", one) == 1
	})
	if r := w.must(nil, "audit", "verify"); !strings.Contains(r.out, "whole") {
		t.Errorf("%q", r.out)
	}
}

// TestAProtectedProfileOnATerminal: credential-process asks at the terminal
// of the program that wants it; without one it says what would help.
func TestAProtectedProfileOnATerminal(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	w := protectedWorld(t)
	one, _ := w.twoPrograms(t)
	ask := func() func() result {
		return c.run(w.command(one, "run", w.keyfob(), "credential-process", "--profile", "deploy"))
	}
	begin := time.Now()
	if r := w.through(one, "deploy"); r.code != 3 || r.out != "" || !strings.Contains(r.err, "hint: keyfob ") {
		t.Errorf("without a terminal: exit %d, %q, %q", r.code, r.out, r.err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("that took %v", d)
	}
	wait := ask()
	c.expect(one)
	c.expect("1 to 4")
	c.typed("once\n")
	if r := wait(); r.code != 0 || w.parse(r).AccessKeyId == "" {
		t.Errorf("once: exit %d, %q", r.code, r.err)
	}
	wait = ask()
	c.expect("1 to 4")
	c.typed("2\n") // hour
	if r := wait(); r.code != 0 {
		t.Errorf("hour: exit %d, %q", r.code, r.err)
	}
	if r := w.through(one, "deploy"); r.code != 0 {
		t.Errorf("within the hour, without a terminal: exit %d, %q", r.code, r.err)
	}
	// For another program nothing was said; it hears no.
	wait = c.run(w.command(w.keyfob(), "credential-process", "--profile", "deploy"))
	c.expect("1 to 4")
	c.typed("\n")
	if r := wait(); r.code != 4 || r.out != "" {
		t.Errorf("no: exit %d, %q, %q", r.code, r.out, r.err)
	}
	eventually(t, "all of it is in the audit log", func() bool {
		self, _ := os.Executable()
		return w.count("handout", one) == 3 && w.count("refusal", self) == 1 && w.count("handout", self) == 0
	})
}

// count is how often the audit log tells of an event of a program.
func (w *world) count(event, program string) (n int) {
	for _, e := range w.audit("--event", event, "--program", program) {
		n += max(1, e.Count)
	}
	return n
}

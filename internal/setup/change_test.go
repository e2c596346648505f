package setup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"keyfob/profiles"
)

const canary = "wJalrXUtnFEMI/CANARYsecret+EXAMPLEKEY1234"

func write(t *testing.T, path, text string) *File {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return read(t, path)
}

func read(t *testing.T, path string) *File {
	t.Helper()
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const config = "# mine\n[default]\nregion = eu-west-1\n\n[profile dev]\nregion = eu-central-1 # why\nrole_arn = arn:aws:iam::123456789012:role/dev\nsource_profile = base\nmfa_serial = arn:aws:iam::123456789012:mfa/a\n\n[profile base]\nregion = x\n"

// files are a home with an AWS config, and the change that has dev's role
// come through keyfob.
func files(t *testing.T) (own, conf string, c *Change, j Journal) {
	t.Helper()
	dir := t.TempDir()
	own, conf = filepath.Join(dir, "keyfob", "profiles"), filepath.Join(dir, "aws", "config")
	cf := write(t, conf, config)
	c, notes, err := Make("configure dev", read(t, own), cf, nil, []Profile{{Name: "dev", Keep: true, Line: "/bin/keyfob credential-process --profile dev"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "role_arn, source_profile and mfa_serial of dev moves") {
		t.Errorf("notes %q", notes)
	}
	return own, conf, c, Journal{Dir: filepath.Join(dir, "data", "configure")}
}

const configAfter = "# mine\n[default]\nregion = eu-west-1\n\n[profile dev]\nregion = eu-central-1 # why\ncredential_process = /bin/keyfob credential-process --profile dev\n\n[profile base]\nregion = x\n"

func TestApplyAndUndo(t *testing.T) {
	own, conf, c, j := files(t)
	want := "--- /dev/null\n+++ " + own + "\n@@ -0,0 +1,4 @@\n+[profile dev]\n+role_arn = arn:aws:iam::123456789012:role/dev\n+source_profile = base\n+mfa_serial = arn:aws:iam::123456789012:mfa/a\n--- " +
		conf + "\n+++ " + conf + "\n@@ -7,3 +7 @@ [profile dev]\n-role_arn = arn:aws:iam::123456789012:role/dev\n-source_profile = base\n-mfa_serial = arn:aws:iam::123456789012:mfa/a\n+credential_process = /bin/keyfob credential-process --profile dev\n"
	if got := c.Diff(); got != want {
		t.Errorf("the diff is\n%s\nwant\n%s", got, want)
	}
	e, err := j.Apply(c)
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != 1 || e.State != StateDone || text(t, conf) != configAfter {
		t.Errorf("%+v, the file is %q", e, text(t, conf))
	}
	if info, err := os.Stat(j.file(1)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the record: %v %v", info, err)
	}
	u, err := j.Last()
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Run(u); err != nil {
		t.Fatal(err)
	}
	if text(t, conf) != config {
		t.Errorf("undone it is %q", text(t, conf))
	}
	if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file that was not there: %v", err)
	}
	if _, err := j.Last(); !errors.Is(err, ErrNothing) {
		t.Errorf("a second undo: %v", err)
	}
}

// A file that somebody else wrote since it was read is not overwritten, and
// what was written before it is put back.
func TestChangedSinceRead(t *testing.T) {
	own, conf, c, j := files(t)
	other := config + "[profile new]\nregion = y\n"
	write(t, conf, other)
	_, err := j.Apply(c)
	if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), conf+": it was changed since it was read") {
		t.Errorf("error %v", err)
	}
	if text(t, conf) != other {
		t.Errorf("it is %q", text(t, conf))
	}
	if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("keyfob's file was not taken back: %v", err)
	}
	if all, err := j.Entries(); err != nil || len(all) != 0 {
		t.Errorf("entries %v %v", all, err)
	}
}

// Where how to undo it can't be noted, nothing is written.
func TestJournalThatCannotBeWritten(t *testing.T) {
	_, conf, c, j := files(t)
	write(t, j.Dir, "a file in its place")
	if _, err := j.Apply(c); err == nil {
		t.Error("no error")
	}
	if text(t, conf) != config {
		t.Errorf("it is %q", text(t, conf))
	}
}

// Broken off between the two files, the change is undone from where it
// stood.
func TestUndoOfWhatWasBrokenOff(t *testing.T) {
	own, conf, c, j := files(t)
	e, err := newEntry(c)
	if err != nil {
		t.Fatal(err)
	}
	e.ID = 1
	if err := os.MkdirAll(j.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := j.save(e); err != nil {
		t.Fatal(err)
	}
	if err := c.Files[0].write(); err != nil { // and then it is killed
		t.Fatal(err)
	}
	u, err := j.Last()
	if err != nil || len(u.Change.Files) != 1 {
		t.Fatalf("%v %v", u, err)
	}
	if err := j.Run(u); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) || text(t, conf) != config {
		t.Errorf("%v, %q", err, text(t, conf))
	}
}

// An edit elsewhere in the file stays; one of what was written says what to
// do by hand, and changes nothing.
func TestUndoAfterOtherEdits(t *testing.T) {
	own, conf, c, j := files(t)
	if _, err := j.Apply(c); err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(configAfter, "[default]\n", "[default]\noutput = json\n", 1) + "[profile z]\n"
	write(t, conf, more)
	u, err := j.Last()
	if err != nil {
		t.Fatal(err)
	}
	write(t, conf, strings.Replace(more, "/bin/keyfob", "/opt/keyfob", 1))
	var hand *ByHand
	if _, err := j.Last(); !errors.As(err, &hand) || hand.Path != conf || len(hand.Steps) != 4 || !strings.Contains(hand.Steps[1], "put in    role_arn = ") {
		t.Errorf("%v %+v", err, hand)
	}
	if err := j.Run(u); !errors.Is(err, ErrChanged) {
		t.Errorf("an undo that was planned before that edit: %v", err)
	}
	if _, err := os.Stat(own); err != nil {
		t.Errorf("half of it was undone: %v", err)
	}
	write(t, conf, more)
	if u, err = j.Last(); err == nil {
		err = j.Run(u)
	}
	want := strings.Replace(config, "[default]\n", "[default]\noutput = json\n", 1) + "[profile z]\n"
	if err != nil || text(t, conf) != want {
		t.Errorf("%v, it is\n%s", err, text(t, conf))
	}
}

// Where the lines stand twice, nobody guesses which are meant.
func TestUndoDoesNotGuess(t *testing.T) {
	dir := t.TempDir()
	conf, j := filepath.Join(dir, "config"), Journal{Dir: filepath.Join(dir, "j")}
	c, err := Plan("x", []Edits{{write(t, conf, "[a]\nx = 1\n[b]\nx = 1\n"), []profiles.Edit{{Section: "a", Key: "y", Value: "2"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Apply(c); err != nil {
		t.Fatal(err)
	}
	write(t, conf, "[a]\nx = 2\ny = 2\n[b]\nx = 2\ny = 2\n")
	var hand *ByHand
	if _, err := j.Last(); !errors.As(err, &hand) {
		t.Errorf("%v", err)
	}
}

// Several are undone, the newest first.
func TestUndosInOrder(t *testing.T) {
	dir := t.TempDir()
	conf, j := filepath.Join(dir, "config"), Journal{Dir: filepath.Join(dir, "j")}
	write(t, conf, "[default]\n")
	was := []string{text(t, conf)}
	for i := range 4 {
		c, err := Plan(fmt.Sprint("step ", i), []Edits{{read(t, conf), []profiles.Edit{{Section: "profile p" + fmt.Sprint(i%2), Key: "region", Value: fmt.Sprint("r", i)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Apply(c); err != nil {
			t.Fatal(err)
		}
		was = append(was, text(t, conf))
	}
	for i := 3; i >= 0; i-- {
		u, err := j.Last()
		if err != nil || u.Entry.Title != fmt.Sprint("step ", i) {
			t.Fatalf("%+v %v", u, err)
		}
		if i == 2 { // this one stays
			if _, err := j.Forget(); err != nil {
				t.Fatal(err)
			}
			break
		}
		if err := j.Run(u); err != nil || text(t, conf) != was[i] {
			t.Errorf("step %d: %v, %q", i, err, text(t, conf))
		}
	}
	if u, err := j.Last(); err != nil || u.Entry.ID != 2 {
		t.Errorf("after forgetting: %+v %v", u, err)
	}
}

// The hunks make one text of the other, both ways.
func TestHunks(t *testing.T) {
	texts := []string{"", "a\n", "a\nb\nc\n", "b\nc\n", "a\nx\nc", "c\nb\na\n", "a\na\na\n", "a\nb\na\nb\nx\n", strings.Repeat("l\n", 50) + "m\n" + strings.Repeat("l\n", 50)}
	for _, a := range texts {
		for _, b := range texts {
			f := EntryFile{}
			for _, h := range hunks(a, b) {
				f.Hunks = append(f.Hunks, entryHunk{OldLine: h.oldLine, NewLine: h.newLine, Old: h.old, New: h.new})
			}
			if got := f.reversed(b); got != a {
				t.Errorf("%q of %q: %q", a, b, got)
			}
		}
	}
	if n := len(hunks(texts[2], texts[3])); n != 1 {
		t.Errorf("%d hunks for one line", n)
	}
}

// What a diff shows and a journal keeps holds no secret.
func TestNoSecrets(t *testing.T) {
	dir := t.TempDir()
	creds := write(t, filepath.Join(dir, "credentials"), "[a]\naws_access_key_id = AKIA1\naws_secret_access_key = x\n   "+canary+"\nx_security_token="+canary+"\n[b]\n")
	c, err := WithoutPairs(creds, []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Diff(); strings.Contains(d, canary) || !strings.Contains(d, "-aws_access_key_id = AKIA1") {
		t.Errorf("the diff is %q", d)
	}
	c, err = Plan("x", []Edits{{creds, []profiles.Edit{{Section: "a", Key: "x_security_token", Value: canary + "2"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Diff(); strings.Contains(d, canary) || !strings.Contains(d, "[redacted]") {
		t.Errorf("the diff is %q", d)
	}
	j := Journal{Dir: filepath.Join(dir, "j")}
	if _, err := j.Apply(c); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("a secret is kept: %v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if s := fmt.Sprintf(verb, Pair{Secret: NewSecret(canary)}); strings.Contains(s, canary) || strings.Contains(s, fmt.Sprintf("%x", canary)) {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

func TestMake(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "config")
	own := filepath.Join(dir, "own")
	line := "/k credential-process --profile dev"
	plan := func(configText, ownText string, p Profile) (string, string, []string) {
		t.Helper()
		cf, of := write(t, conf, configText), write(t, own, ownText)
		p.Name, p.Line = "dev", line
		c, notes, err := Make("x", of, cf, nil, []Profile{p})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(); err != nil {
			t.Fatal(err)
		}
		return text(t, conf), text(t, own), notes
	}
	role := []Setting{{"role_arn", "arn:2"}, {"source_profile", "b"}}
	// Sources of another kind go, the ones that say how stay.
	c, o, notes := plan("[profile dev]\nsso_account_id = 1\nexternal_id = e\nregion = r\n", "[profile dev]\nlogin_session = x\noutput = json\n", Profile{Settings: role, Region: "eu-west-1"})
	if c != "[profile dev]\nregion = eu-west-1\ncredential_process = "+line+"\n" || o != "[profile dev]\noutput = json\nrole_arn = arn:2\nsource_profile = b\nexternal_id = e\n" || len(notes) != 2 {
		t.Errorf("%s\n%s\n%q", c, o, notes)
	}
	// Another keyfob's line is replaced, another program's is moved.
	c, o, _ = plan("[profile dev]\ncredential_process = /old/keyfob credential-process --profile dev\n", "", Profile{Settings: role})
	if c != "[profile dev]\ncredential_process = "+line+"\n" || strings.Contains(o, "credential_process") {
		t.Errorf("%s\n%s", c, o)
	}
	c, o, _ = plan("[profile dev]\ncredential_process = other tool\n", "", Profile{Keep: true})
	if c != "[profile dev]\ncredential_process = "+line+"\n" || o != "[profile dev]\ncredential_process = other tool\n" {
		t.Errorf("%s\n%s", c, o)
	}
	// What is dropped goes from both.
	c, o, _ = plan("[profile dev]\nmfa_serial = a\n", "[profile dev]\nmfa_serial = b\nrole_arn = arn:1\nsource_profile = b\n", Profile{Settings: role, Drop: []string{"mfa_serial"}})
	if strings.Contains(c+o, "mfa_serial") || !strings.Contains(o, "arn:2") {
		t.Errorf("%s\n%s", c, o)
	}
	// A second time nothing changes.
	ch, _, err := Make("x", read(t, own), read(t, conf), nil, []Profile{{Name: "dev", Line: line, Settings: role}})
	if err != nil || !ch.Empty() {
		t.Errorf("%v, %s", err, ch.Diff())
	}
}

func TestMakeSession(t *testing.T) {
	dir := t.TempDir()
	s := &Session{Name: "corp", StartURL: "https://corp.awsapps.com/start", Region: "eu-west-1"}
	p := []Profile{{Name: "a", Line: "/k", Settings: []Setting{{"sso_session", "corp"}}}}
	for text, want := range map[string]string{
		"": "[sso-session corp]",
		"[sso-session corp]\nsso_start_url = https://corp.awsapps.com/start/\nsso_region = eu-west-1\n": "",
		"[sso-session corp]\nsso_start_url = https://other.awsapps.com/start\nsso_region = eu-west-1\n": "error",
		"[sso-session corp]\nsso_region = eu-west-1\n":                                                  "error",
	} {
		c, _, err := Make("x", read(t, filepath.Join(dir, "own")), write(t, filepath.Join(dir, "config"), text), s, p)
		switch {
		case want == "error":
			if err == nil || !strings.Contains(err.Error(), "cannot use the name corp") {
				t.Errorf("%q: %v", text, err)
			}
		case err != nil:
			t.Error(err)
		case strings.Contains(c.Diff(), "+[sso-session") != (want != ""):
			t.Errorf("%q: %s", text, c.Diff())
		}
	}
}

// Three hundred profiles in a config of ten thousand lines take no longer
// than a person waits.
func TestManyProfiles(t *testing.T) {
	var b strings.Builder
	for i := range 2500 {
		fmt.Fprintf(&b, "[profile old%d]\nregion = eu-west-1\noutput = json\n\n", i)
	}
	dir := t.TempDir()
	conf := write(t, filepath.Join(dir, "config"), b.String())
	var all []Profile
	for i := range 300 {
		all = append(all, Profile{Name: fmt.Sprint("new", i), Line: "/k", Region: "eu-west-1", Settings: []Setting{{"sso_session", "s"}, {"sso_account_id", "1"}, {"sso_role_name", "r"}}})
	}
	begin := time.Now()
	c, _, err := Make("x", read(t, filepath.Join(dir, "own")), conf, nil, all)
	if err != nil || len(c.Files) != 2 {
		t.Fatal(err)
	}
	_ = c.Diff()
	if took := time.Since(begin); took > 10*time.Second { // one by one they take half a minute
		t.Errorf("it took %v", took)
	}
}

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// configHome is a home with an AWS config, on a terminal.
func configHome(t *testing.T, config string) (*home, *console, string) {
	t.Helper()
	h, c := newHome(t), newConsole(t)
	h.set("mode", "unlocked")
	path := filepath.Join(h.dir, ".aws", "config")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return h, c, path
}

func (h *home) file(path string) string {
	h.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *home) own() string { return filepath.Join(h.dir, "c", "keyfob", "profiles") }

// The wizard from its first question: an IAM user, whose device AWS knows.
func TestConfigureUser(t *testing.T) {
	h, c, config := configHome(t, "")
	cmd := h.command("configure")
	c.start(cmd)
	c.expect("Where do the credentials come from?")
	c.expect("Kind (1 to 7): ")
	c.typed("x\n")
	c.expect("that can't be: it is a number from 1 to 7")
	c.typed("1\n")
	c.expect("Name of the profile [default]: ")
	c.typed("a b\n")
	c.expect("that can't be: a name has letters")
	c.typed("dev\n")
	c.expect("AWS access key ID for dev: ")
	c.typed("AKIAEXAMPLE\n")
	c.expect("AWS secret access key: ")
	c.typed("CANARY-typed\n")
	c.expect("the key is arn:aws:iam::123456789012:user/u's, and in the vault")
	c.expect("The user has the MFA device arn:aws:iam::123456789012:mfa/u. Ask for its code at each sign-in? [Y/n] ")
	c.typed("\n")
	c.expect("Region for its programs (Enter for none): ")
	c.typed("ireland\n")
	c.expect("that can't be: it is a region, as eu-west-1")
	c.typed("eu-west-1\n")
	c.expect("+mfa_serial = arn:aws:iam::123456789012:mfa/u")
	c.expect("Write that? [Y/n] ")
	if text := h.file(config) + h.file(h.own()); text != "" {
		t.Errorf("written before the answer: %q", text)
	}
	c.typed("y\n")
	if code := exitCode(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.text())
	}
	if want := "[profile dev]\nmfa_serial = arn:aws:iam::123456789012:mfa/u\n"; h.file(h.own()) != want {
		t.Errorf("keyfob's file is %q", h.file(h.own()))
	}
	if text := h.file(config); !strings.Contains(text, "credential-process --profile dev\nregion = eu-west-1\n") {
		t.Errorf("the AWS config is %q", text)
	}
	c.expect("configured dev\r\n")
	if strings.Contains(c.text(), "CANARY") || !c.echoes() {
		t.Errorf("the terminal shows %q, echoes: %v", c.text(), c.echoes())
	}
}

// What the AWS config says already is what Enter keeps, and it moves.
func TestConfigureRoleThatIsThere(t *testing.T) {
	h, c, config := configHome(t, "[profile ops]\nrole_arn = arn:aws:iam::123456789012:role/ops\nsource_profile = prod\n")
	cmd := h.command("configure", "ops")
	c.start(cmd)
	c.expect("Kind (1 to 8) [8]: ")
	c.typed("2\n")
	c.expect("ARN of the role [arn:aws:iam::123456789012:role/ops]: ")
	c.typed("\n")
	c.expect("Profile that assumes it:\r\n   1  a ")
	c.expect("Profile (1 to 3) [3]: ")
	c.typed("\n")
	c.expect("External id, where the role wants one (Enter for none): ")
	c.typed("\n")
	c.expect("MFA device, where the role wants a code (Enter for none): ")
	c.typed("\n")
	c.expect("Region for its programs (Enter for none): ")
	c.typed("\n")
	c.expect("role_arn and source_profile of ops moves from ")
	c.expect("Write that? [Y/n] ")
	c.typed("\n")
	if code := exitCode(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.text())
	}
	if h.file(h.own()) != "[profile ops]\nrole_arn = arn:aws:iam::123456789012:role/ops\nsource_profile = prod\n" || strings.Contains(h.file(config), "role_arn") {
		t.Errorf("%q\n%q", h.file(h.own()), h.file(config))
	}
}

// Accounts and roles by numbers, ranges and a text to look for.
func TestConfigureChooses(t *testing.T) {
	for typed, want := range map[string]string{
		"1,3-4\n":          "configured 333333333333-Admin\r\nconfigured Prod-EU-Admin\r\nconfigured Prod-EU-ReadOnly\r\n",
		"nothing\nall\n":   "configured 333333333333-Admin\r\nconfigured Dev-31m-Admin\r\nconfigured Prod-EU-Admin\r\nconfigured Prod-EU-ReadOnly\r\n",
		"9\nread\nall\n":   "configured Prod-EU-ReadOnly\r\n",
		"prod\n3\n":        "configured Prod-EU-Admin\r\n",
		"2 - 4\n2\n":       "configured Dev-31m-Admin\r\n",
		"5-1\nPROD\n3-4\n": "configured Prod-EU-Admin\r\nconfigured Prod-EU-ReadOnly\r\n",
	} {
		h, c, _ := configHome(t, "[sso-session corp]\nsso_start_url = https://corp.awsapps.com/start\nsso_region = eu-central-1\n")
		cmd := h.command("configure", "--kind", "sso", "--region", "eu-west-1")
		c.start(cmd)
		c.expect("   1  corp ")
		c.typed("1\n")
		c.expect("   1  333333333333")
		c.expect("   2  111111111111  Dev[31m")
		for _, line := range strings.SplitAfter(typed, "\n") {
			if line != "" {
				c.expect("a text to look for: ")
				c.typed(line)
			}
		}
		c.expect("Write that? [Y/n] ")
		c.typed("\n")
		code := exitCode(t, cmd)
		c.expect("hint: keyfob whoami") // the last that is shown
		if code != 0 || !strings.Contains(c.text(), want) || strings.Count(c.text(), "\nconfigured ") != strings.Count(want, "configured ") {
			t.Errorf("%q: exit code %d, %s", typed, code, c.text())
		}
		if strings.Contains(h.file(h.own()), "[sso-session") {
			t.Errorf("a second section for the sign-in: %s", h.file(h.own()))
		}
		if strings.Contains(c.text(), "\x1b[31m") {
			t.Error("an escape sequence of an account's name reached the terminal")
		}
	}
}

// However the wizard ends, what was there stays.
func TestConfigureLeavesWhatWasThere(t *testing.T) {
	const before = "[profile ops] # mine\nregion = x\n"
	for name, end := range map[string]func(t *testing.T, c *console, config string) int{
		"interrupted at a question": func(t *testing.T, c *console, _ string) int {
			c.expect("ARN of the role: ")
			c.typed("arn:\x03")
			return -int(syscall.SIGINT)
		},
		"no at the end": func(t *testing.T, c *console, _ string) int {
			c.typed("arn:aws:iam::123456789012:role/x\n1\n\n\n\n")
			c.expect("Write that? [Y/n] ")
			c.typed("n\n")
			c.expect("you said no, and no file was changed")
			return 1
		},
		"interrupted at the end": func(t *testing.T, c *console, _ string) int {
			c.typed("arn:aws:iam::123456789012:role/x\n1\n\n\n\n")
			c.expect("Write that? [Y/n] ")
			c.typed("\x03")
			return -int(syscall.SIGINT)
		},
		"changed meanwhile": func(t *testing.T, c *console, config string) int {
			c.typed("arn:aws:iam::123456789012:role/x\n1\n\n\n\n")
			c.expect("Write that? [Y/n] ")
			if err := os.WriteFile(config, []byte(before+"# edited\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c.typed("y\n")
			c.expect("it was changed since it was read")
			if err := os.WriteFile(config, []byte(before), 0o600); err != nil { // what it is compared with
				t.Fatal(err)
			}
			return 1
		},
		"answers that can't be": func(t *testing.T, c *console, _ string) int {
			c.typed(strings.Repeat("x\n", maxTries))
			c.expect("cannot go on: no answer could be used")
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, c, config := configHome(t, before)
			cmd := h.command("configure", "ops", "--kind", "role")
			c.start(cmd)
			want := end(t, c, config)
			if code := exitCode(t, cmd); code != want {
				t.Errorf("exit code %d, want %d: %s", code, want, c.text())
			}
			if h.file(config) != before || h.file(h.own()) != "" {
				t.Errorf("%q\n%q", h.file(config), h.file(h.own()))
			}
			if all, _ := filepath.Glob(filepath.Join(h.data, "configure", "*.json")); len(all) > 0 {
				t.Errorf("%v is noted", all)
			}
			if !c.echoes() {
				t.Error("the terminal is left without echo")
			}
		})
	}
}

// A home that can't be written, or has no room, keeps what it has.
func TestConfigureUnwritable(t *testing.T) {
	h, _, config := configHome(t, "[default]\n")
	// A directory in the place of keyfob's file fails as a full disk does,
	// for root too.
	if err := os.MkdirAll(filepath.Join(h.dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "c", "keyfob"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := h.command("configure", "x", "--kind", "role", "--role-arn", "arn:aws:iam::123456789012:role/x", "--source-profile", "prod", "--yes")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "keyfob: cannot ") || h.file(config) != "[default]\n" {
		t.Errorf("%v, %s\n%q", err, out, h.file(config))
	}
}

// With no room for a single byte, every file is as it was.
func TestConfigureWithoutRoom(t *testing.T) {
	h, _, config := configHome(t, "[default]\n")
	if out, err := h.command("status").CombinedOutput(); err != nil { // the daemon may write
		t.Fatalf("%v %s", err, out)
	}
	for _, args := range []string{"x --kind login --yes", "x --kind role --role-arn arn:aws:iam::123456789012:role/x --source-profile prod --yes"} {
		cmd := exec.Command("sh", "-c", "ulimit -f 0; exec keyfob configure "+args+" 2>&1 | cat")
		cmd.Env, cmd.Dir = h.env, h.dir
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), "keyfob: cannot ") || h.file(config) != "[default]\n" || h.file(h.own()) != "" {
			t.Errorf("%s\n%q %q", out, h.file(config), h.file(h.own()))
		}
		var left []string
		_ = filepath.WalkDir(h.dir, func(path string, _ os.DirEntry, _ error) error {
			if strings.Contains(path, ".tmp") || strings.HasSuffix(path, ".json") {
				left = append(left, path)
			}
			return nil
		})
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// Undo asks, and shows what it takes back.
func TestConfigureUndoAsks(t *testing.T) {
	for typed, code := range map[string]int{"\n": 0, "n\n": 1} {
		h, c, config := configHome(t, "[default]\n")
		if out, err := h.command("configure", "x", "--kind", "login", "--yes").CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		written := h.file(config)
		cmd := h.command("configure", "undo")
		c.start(cmd)
		c.expect("-credential_process = ")
		c.expect(`Take back "configure x", of `)
		c.typed(typed)
		if got := exitCode(t, cmd); got != code || (h.file(config) == written) != (code != 0) {
			t.Errorf("%q: exit code %d, %q", typed, got, h.file(config))
		}
	}
}

// import lists first, asks which and whether, and offers to shred.
func TestImportAsks(t *testing.T) {
	h, c, _ := configHome(t, "")
	creds := filepath.Join(h.dir, ".aws", "credentials")
	const text = "[dev]\naws_access_key_id = AKIA1\naws_secret_access_key = CANARY1\n[two]\naws_access_key_id = AKIA2\naws_secret_access_key = CANARY2\n"
	if err := os.WriteFile(creds, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := h.command("import")
	c.start(cmd)
	c.expect("   1  dev  AKIA1")
	c.expect("a text to look for: ")
	c.typed("2\n")
	c.expect("Check these keys with AWS and move them into the vault? [Y/n] ")
	c.typed("y\n")
	c.expect("Overwrite and remove the backup of the credentials file, ")
	c.typed("y\n")
	if code := exitCode(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.text())
	}
	if left := h.file(creds); left != "[dev]\naws_access_key_id = AKIA1\naws_secret_access_key = CANARY1\n[two]\n" {
		t.Errorf("the file is %q", left)
	}
	if all, _ := filepath.Glob(creds + ".*"); len(all) > 0 || strings.Contains(c.text(), "CANARY") {
		t.Errorf("%v, %s", all, c.text())
	}
	c.expect("may keep the old blocks")
}

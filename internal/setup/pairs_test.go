package setup

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCredentialsAndRemoval(t *testing.T) {
	for _, eol := range []string{"\n", "\r\n"} {
		in := "\ufeff# of mine\n[default]\naws_access_key_id = AKIA1\naws_secret_access_key=" + canary + "   # note\nregion = x\n\n[tmp]\naws_access_key_id = ASIA1\naws_secret_access_key = b\naws_session_token = c\n" +
			"[half]\naws_access_key_id = AKIA9\n[dup]\noutput=json\nAWS_ACCESS_KEY_ID = AKIA1\naws_secret_access_key = " + canary + "\nokta_key = z\n[old]\naws_access_key_id = AKIA3\naws_secret_access_key = d\n[profile odd]\naws_access_key_id = AKIA4\naws_secret_access_key = d\n[empty]"
		in = strings.ReplaceAll(in, "\n", eol)
		path := filepath.Join(t.TempDir(), "credentials")
		f := write(t, path, in)
		pairs, left, err := Credentials(f)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range pairs {
			names = append(names, p.Profile)
		}
		if strings.Join(names, " ") != "default dup old" || pairs[0].Secret.Reveal() != canary || pairs[0].Line != 3 || strings.Join(pairs[0].Also, " ") != "dup" {
			t.Errorf("%+v", pairs)
		}
		why := map[string]string{"tmp": temporary, "half": "half of the pair", "profile odd": "as in the config file"}
		for _, l := range left {
			if why[l.Profile] == "" || !strings.Contains(l.Why, why[l.Profile]) {
				t.Errorf("left %+v", l)
			}
			delete(why, l.Profile)
		}
		if len(why) > 0 {
			t.Errorf("not said: %v", why)
		}
		c, err := WithoutPairs(f, []string{"default", "dup"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(); err != nil {
			t.Fatal(err)
		}
		want := in
		for _, l := range []string{"aws_access_key_id = AKIA1\n", "aws_secret_access_key=" + canary + "   # note\n", "AWS_ACCESS_KEY_ID = AKIA1\n", "aws_secret_access_key = " + canary + "\n"} {
			l = strings.ReplaceAll(l, "\n", eol)
			i := strings.Index(want, l)
			want = want[:i] + want[i+len(l):]
		}
		if got := text(t, path); got != want {
			t.Errorf("the file is\n%q\nwant\n%q", got, want)
		}
	}
}

// Whatever else a file has, taking a pair out takes its lines and no byte
// more.
func TestRemovalKeepsEverythingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	rapid.Check(t, func(rt *rapid.T) {
		other := rapid.SampledFrom([]string{"# c", "", "region = x", "tool_key =  v ; c", "[b]", "\ttext", "; aws_secret_access_key = " + canary, "output=json", "[c d]", "s3 =\n  x = 1"})
		var b, want strings.Builder
		eol := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(rt, "eol")
		put := func(line string, keep bool) {
			line = strings.ReplaceAll(line, "\n", eol) + eol
			b.WriteString(line)
			if keep {
				want.WriteString(line)
			}
		}
		lines := func(n int) {
			for range n {
				l := other.Draw(rt, "line")
				if strings.HasPrefix(l, "[") || strings.HasPrefix(l, "\t") {
					continue
				}
				put(l, true)
			}
		}
		put("[b]", true)
		lines(rapid.IntRange(0, 3).Draw(rt, "before"))
		put("[a]", true)
		lines(rapid.IntRange(0, 3).Draw(rt, "in front"))
		put("aws_access_key_id = AKIA1", false)
		lines(rapid.IntRange(0, 3).Draw(rt, "between"))
		put("aws_secret_access_key = "+canary, false)
		lines(rapid.IntRange(0, 3).Draw(rt, "behind"))
		put("[c]", true)
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			rt.Fatal(err)
		}
		f, err := Read(path)
		if err != nil {
			rt.Fatal(err)
		}
		c, err := WithoutPairs(f, []string{"a"})
		if err != nil {
			rt.Fatal(err)
		}
		if err := c.Apply(); err != nil {
			rt.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		if string(got) != want.String() {
			rt.Fatalf("%q\nwant\n%q", got, want.String())
		}
	})
}

func TestCSV(t *testing.T) {
	for name, c := range map[string]struct{ in, want, err string }{
		"of a user's page":       {"Access key ID,Secret access key\r\nAKIA1," + canary + "\r\n", " AKIA1", ""},
		"with a mark":            {"\ufeffAccess key ID,Secret access key\nAKIA1," + canary, " AKIA1", ""},
		"with names":             {"User Name,Access key ID,Secret access key\nana bela,AKIA1," + canary + "\n\"b\",AKIA2," + canary + "\n", "ana-bela AKIA1|b AKIA2", ""},
		"of the old console":     {"User name,Password,Access key ID,Secret access key,Console login link\na,pw,AKIA1," + canary + ",https://x\nb,pw2,,,https://x\n", "a AKIA1", ""},
		"a console password":     {"User name,Password,Console sign-in URL\na,CANARYpassword,https://x\n", "", "it holds a console password"},
		"no keys":                {"a,b\n1,2\n", "", "its first line names no access key"},
		"empty":                  {"", "", "it is empty"},
		"half":                   {"Access key ID,Secret access key\nAKIA1,\n", "", ":2: half of the pair"},
		"temporary":              {"Access key ID,Secret access key\nASIA1," + canary + "\n", "", ":2: the keys are temporary"},
		"a quote that is open":   {"Access key ID,Secret access key\nAKIA1,\"" + canary + "\n", "", "it is no line of a CSV file"},
		"a header and no more":   {"Access key ID,Secret access key\n", "", "it holds no access key"},
		"columns in other order": {"secret  access KEY,access key id\n" + canary + ",AKIA1\n", " AKIA1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			pairs, err := CSV(write(t, filepath.Join(t.TempDir(), "k.csv"), c.in))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "CANARY") {
					t.Fatalf("error %v", err)
				}
				return
			}
			var got []string
			for _, p := range pairs {
				got = append(got, p.Profile+" "+p.AccessKeyID)
				if p.Secret.Reveal() != canary {
					t.Error("another secret")
				}
			}
			if err != nil || strings.Join(got, "|") != c.want {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	for want, env := range map[string]map[string]string{
		"":                    {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": canary},
		"are not set":         {},
		"one of":              {"AWS_ACCESS_KEY_ID": "AKIA1"},
		"there are temporary": {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": canary, "AWS_SESSION_TOKEN": "x"},
	} {
		_, err := Environment(func(n string) string { return env[n] })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestBackupAndShred(t *testing.T) {
	dir := t.TempDir()
	f := write(t, filepath.Join(dir, "credentials"), canary)
	if err := os.Chmod(f.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var paths []string
	for range 2 { // in the same second
		path, err := Backup(f, now)
		if err != nil || text(t, path) != canary {
			t.Fatalf("%s %v", path, err)
		}
		if info, _ := os.Stat(path); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		paths = append(paths, path)
	}
	// What is overwritten is the file's own blocks: seen through another name.
	spy := filepath.Join(dir, "spy")
	if err := os.Link(paths[0], spy); err != nil {
		t.Skip(err)
	}
	if err := Shred(paths[0]); err != nil {
		t.Fatal(err)
	}
	if b := text(t, spy); len(b) != len(canary) || b == canary {
		t.Errorf("the blocks hold %q", b)
	}
	if _, err := os.Stat(paths[0]); err == nil {
		t.Error("it is there")
	}
	if err := Shred(dir); err == nil {
		t.Error("a directory was shredded")
	}
}

func TestNames(t *testing.T) {
	all := []Named{
		{"111111111111", "Dev Team (EU)", "Admin", "s"},
		{"222222222222", "Dev-Team/EU", "Admin", "s"},
		{"333333333333", "", "ReadOnly", "s"},
		{"444444444444", "Prod", "Admin", "s"},
		{"555555555555", "Größe", "A", "s"},
	}
	got, err := Names(DefaultTemplate, all, func(name string, _ Named) bool { return name == "Prod-Admin" })
	want := "Dev-Team-EU-Admin-111111111111 Dev-Team-EU-Admin-222222222222 333333333333-ReadOnly Prod-Admin-444444444444 Größe-A"
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("%q, %v", got, err)
	}
	got, err = Names("{session}/{role}", []Named{all[0], all[0], all[0]}, func(string, Named) bool { return false })
	if err != nil || strings.Join(got, " ") != "s/Admin-111111111111 s/Admin-111111111111-2 s/Admin-111111111111-3" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"{x}", "{role", "a b", "", "{account_name} "} {
		if CheckTemplate(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "a", "a b", "]", "[x", "é", "\x00", "a-", "-", "a/b", "  ", "\u202e", "名"})
		var all []Named
		for range rapid.IntRange(1, 8).Draw(t, "n") {
			all = append(all, Named{AccountID: rapid.StringMatching(`[0-9]{12}`).Draw(t, "id"), AccountName: text.Draw(t, "name"), Role: "r" + text.Draw(t, "role")})
		}
		names, err := Names(DefaultTemplate, all, func(n string, _ Named) bool { return n == "a-r" })
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{"a-r": true}
		for _, n := range names {
			if seen[n] || Name(n) != nil {
				t.Fatalf("%q in %q", n, names)
			}
			seen[n] = true
		}
	})
}

func TestCredentialProcess(t *testing.T) {
	for _, c := range []struct {
		program, profile string
		flags            []string
		windows          bool
		want             string
	}{
		{"/usr/bin/keyfob", "dev", nil, false, "/usr/bin/keyfob credential-process --profile dev"},
		{"/a b/keyfob", "dev", []string{"--socket", "/s"}, false, `"/a b/keyfob" --socket /s credential-process --profile dev`},
		{"/a b/keyfob", "c d", nil, false, `"/a b/keyfob" --profile "c d" credential-process`},
		{"/k", "ä", nil, false, `/k --profile "ä" credential-process`},
		{`C:\Program Files\keyfob.exe`, "dev", nil, true, `"C:\Program Files\keyfob.exe" credential-process --profile dev`},
		{`C:\k.exe`, "dev", nil, true, `C:\k.exe credential-process --profile dev`},
		{"/a$b/keyfob", "dev", nil, false, ""},
		{"/a`b/keyfob", "dev", nil, false, ""},
		{`/a"b/keyfob`, "dev", nil, false, ""},
		{`/a\b/keyfob`, "dev", nil, false, ""},
		{"/a #b/keyfob", "dev", nil, false, ""},
		{`C:\%x%\k.exe`, "dev", nil, true, ""},
	} {
		got, err := CredentialProcess(c.program, c.profile, c.flags, c.windows)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %s: %q, %v", c.program, c.profile, got, err)
		}
		if got != "" && strings.ContainsRune("\"'", rune(got[0])) && strings.HasSuffix(got, got[:1]) {
			t.Errorf("%s begins and ends with a quote", got)
		}
	}
}

func TestChecks(t *testing.T) {
	for name, c := range map[string]struct {
		check     func(string) error
		good, bad []string
	}{
		"role":     {RoleARN, []string{"arn:aws:iam::123456789012:role/a", "arn:aws-cn:iam::123456789012:role/p/a"}, []string{"", "arn:aws:iam::1:role/a", "arn:aws:iam::123456789012:user/a", "arn:aws:iam::123456789012:role/", "arn:aws:iam::123456789012:role/a b", "role/a"}},
		"device":   {MFASerial, []string{"arn:aws:iam::123456789012:mfa/a", "GAHT12345678"}, []string{"123456", "arn:aws:iam::123456789012:user/a", "a b c d e f g"}},
		"anchor":   {TrustAnchorARN, []string{"arn:aws:rolesanywhere:eu-west-1:123456789012:trust-anchor/x"}, []string{"arn:aws:rolesanywhere:eu-west-1:123456789012:profile/x"}},
		"region":   {Region, []string{"eu-west-1", "us-gov-west-1", "ap-southeast-10"}, []string{"", "eu", "EU-WEST-1", "eu-west-1a", "eu west 1"}},
		"account":  {Account, []string{"123456789012"}, []string{"1234", "1234567890123", "12345678901a"}},
		"url":      {URL, []string{"https://a.b/c", "http://localhost:1/x"}, []string{"", "a.b", "http://a.b", "https://u@a.b", "ftp://a"}},
		"duration": {Duration, []string{"900", "43200"}, []string{"899", "43201", "1h", ""}},
		"name":     {Name, []string{"a", "a/b@c.d", "ü"}, []string{"", "a b", "a]", "a#"}},
		"text":     {Text, []string{"", "a b"}, []string{"a #b", " a", "a\nb"}},
	} {
		for _, s := range c.good {
			if err := c.check(s); err != nil {
				t.Errorf("%s %q: %v", name, s, err)
			}
		}
		for _, s := range c.bad {
			if c.check(s) == nil {
				t.Errorf("%s takes %q", name, s)
			}
		}
	}
}

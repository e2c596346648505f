package profiles

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestEdit(t *testing.T) {
	for _, c := range []struct {
		name, in string
		edits    []Edit
		out      string
	}{
		{"replace", "[a]\nx = 1\ny=2\n", []Edit{{Section: "a", Key: "y", Value: "3"}}, "[a]\nx = 1\ny=3\n"},
		{"spacing, spelling and comment stay", "[profile  a] # c\n  \nReGion\t=  eu-west-1   # why\n", []Edit{{Section: "profile a", Key: "region", Value: "us-east-1"}}, "[profile  a] # c\n  \nReGion\t=  us-east-1   # why\n"},
		{"the same value changes nothing", "[a]\nx =   1 \n", []Edit{{Section: "a", Key: "x", Value: "1"}}, "[a]\nx =   1 \n"},
		{"the last of duplicates", "[a]\nx = 1\n[b]\n[a]\nx = 2\n", []Edit{{Section: "a", Key: "x", Value: "3"}}, "[a]\nx = 1\n[b]\n[a]\nx = 3\n"},
		{"add to a section", "[a]\nx = 1\n\n# of b\n[b]\ny = 2\n", []Edit{{Section: "a", Key: "z", Value: "3"}}, "[a]\nx = 1\nz = 3\n\n# of b\n[b]\ny = 2\n"},
		{"add to an empty section", "[a]\n[b]\n", []Edit{{Section: "a", Key: "z", Value: "3"}}, "[a]\nz = 3\n[b]\n"},
		{"add after a block", "[a]\ns =\n  x = 1\n\n", []Edit{{Section: "a", Key: "z", Value: "3"}}, "[a]\ns =\n  x = 1\nz = 3\n\n"},
		{"add after an indented comment", "[a]\n  # c\nx =\n  # d\n", []Edit{{Section: "a", Key: "z", Value: "3"}}, "[a]\n  # c\nx =\n  # d\nz = 3\n"},
		{"add without a last line end", "[a]\nx = 1", []Edit{{Section: "a", Key: "z", Value: "3"}}, "[a]\nx = 1\nz = 3\n"},
		{"add a section", "[a]\nx = 1\n", []Edit{{Section: "profile b", Key: "z", Value: "3"}, {Section: "profile b", Key: "y", Value: "4"}}, "[a]\nx = 1\n\n[profile b]\nz = 3\ny = 4\n"},
		{"add a section without a last line end", "[a]\nx = 1", []Edit{{Section: "b", Key: "z", Value: "3"}}, "[a]\nx = 1\n\n[b]\nz = 3\n"},
		{"add a section after a blank line", "[a]\n\n", []Edit{{Section: "b", Key: "z", Value: "3"}}, "[a]\n\n[b]\nz = 3\n"},
		{"add to an empty file", "", []Edit{{Section: "b", Key: "z", Value: "3"}}, "[b]\nz = 3\n"},
		{"add to a file of a byte-order mark", "\ufeff", []Edit{{Section: "b", Key: "z", Value: "3"}}, "\ufeff[b]\nz = 3\n"},
		{"a name with a blank", "[profile 'a b']\nx = 1\n", []Edit{{Section: "profile a b", Key: "x", Value: "2"}, {Section: `profile "c d"`, Key: "x", Value: "3"}}, "[profile 'a b']\nx = 2\n\n[profile \"c d\"]\nx = 3\n"},
		{"CRLF", "[a]\r\nx = 1\r\n  2\r\n[b]\r\n", []Edit{{Section: "a", Key: "x", Value: "3\n4"}, {Section: "a", Key: "y", Value: "5"}, {Section: "c", Key: "z", Value: "6"}},
			"[a]\r\nx = 3\r\n  4\r\ny = 5\r\n[b]\r\n\r\n[c]\r\nz = 6\r\n"},
		{"mixed line ends", "[a]\nx = 1\r\ny = 2\n", []Edit{{Section: "a", Key: "x", Value: "3"}, {Section: "a", Key: "z", Value: "4"}}, "[a]\nx = 3\r\ny = 2\nz = 4\n"},
		{"continuations go", "[a]\nx = 1\n  2\n# c\n\n  3\ny = 2\n", []Edit{{Section: "a", Key: "x", Value: "4"}}, "[a]\nx = 4\n# c\n\ny = 2\n"},
		{"continuations come", "[a]\nx = 1 # c\ny = 2\n", []Edit{{Section: "a", Key: "x", Value: "4\n5"}}, "[a]\nx = 4 # c\n  5\ny = 2\n"},
		{"a block becomes a value", "[a]\ns =\n  # c\n  x = 1\n\ny = 2\n", []Edit{{Section: "a", Key: "s", Value: "v"}}, "[a]\ns = v\n\ny = 2\n"},
		{"an empty value", "[a]\nx =\ny=\nz = # c\n", []Edit{{Section: "a", Key: "x", Value: "1"}, {Section: "a", Key: "y", Value: "2"}, {Section: "a", Key: "z", Value: "3"}}, "[a]\nx = 1\ny= 2\nz = 3 # c\n"},
		{"an empty value above an indented comment", "[a]\nx =\n  # c\ny = 1\n", []Edit{{Section: "a", Key: "x", Value: "2"}}, "[a]\nx =\n  # c\ny = 1\nx = 2\n"},
		{"empty a value", "[a]\nx = 1\n  2\ny = 2\n", []Edit{{Section: "a", Key: "x", Value: ""}}, "[a]\nx = \ny = 2\n"},
		{"delete", "[a]\nx = 1\n  2\n# c\n\n  3\ny = 2\n[a]\nX=3\n", []Edit{{Section: "a", Key: "x", Delete: true}}, "[a]\n# c\n\ny = 2\n[a]\n"},
		{"delete a block", "[a]\ny = 2\ns =\n  # c\n  x = 1\nz = 1", []Edit{{Section: "a", Key: "s", Delete: true}}, "[a]\ny = 2\nz = 1"},
		{"delete the last line", "[a]\ny = 2\nz = 1", []Edit{{Section: "a", Key: "z", Delete: true}}, "[a]\ny = 2\n"},
		{"delete what is not there", "[a]\nx = 1", []Edit{{Section: "a", Key: "y", Delete: true}, {Section: "b", Key: "x", Delete: true}}, "[a]\nx = 1"},
		{"[profile default] where it hides [default]", "[default]\nx = 1\n[profile default]\nx = 2\n", []Edit{{Section: "default", Key: "x", Value: "3"}}, "[default]\nx = 1\n[profile default]\nx = 3\n"},
		{"[default] where it stands alone", "[default]\nx = 1\n", []Edit{{Section: "profile default", Key: "x", Value: "3"}}, "[default]\nx = 3\n"},
		{"a credentials file", "[profile]\nx = 1\n[b]\nx = 2\n", []Edit{{Section: "b", Key: "x", Value: "3"}}, "[profile]\nx = 1\n[b]\nx = 3\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, []byte(c.in), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := EditFile(path, c.edits); err != nil {
				t.Fatal(err)
			}
			out, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != c.out {
				t.Errorf("file is %q\nwant    %q", out, c.out)
			}
		})
	}
}

func TestEditRefuses(t *testing.T) {
	for _, c := range []struct {
		name, in string
		e        Edit
		want     string
	}{
		{"a comment in a value", "[a]\n", Edit{Section: "a", Key: "x", Value: testSecret + " # b"}, "would not read back"},
		{"blanks at the end", "[a]\n", Edit{Section: "a", Key: "x", Value: testSecret + " "}, "would not read back"},
		{"a section in a value", "[a]\n", Edit{Section: "a", Key: "x", Value: testSecret + "\n\n[b]"}, "would not read back"},
		{"an empty first line", "[a]\n", Edit{Section: "a", Key: "x", Value: "\n" + testSecret}, "can't have that value"},
		{"a carriage return", "[a]\n", Edit{Section: "a", Key: "x", Value: testSecret + "\r"}, "would not read back"},
		{"NUL", "[a]\n", Edit{Section: "a", Key: "x", Value: testSecret + "\x00"}, "can't have that value"},
		{"not UTF-8", "[a]\n", Edit{Section: "a", Key: "x", Value: testSecret + "\xff"}, "can't have that value"},
		{"a bad key", "[a]\n", Edit{Section: "a", Key: "x y", Value: testSecret}, "name has characters outside"},
		{"no key", "[a]\n", Edit{Section: "a", Delete: true}, "name has characters outside"},
		{"a bad section", "[a]\n", Edit{Section: "a]\nb", Key: "x", Value: testSecret}, "section's name"},
		{"no section", "[a]\n", Edit{Key: "x", Value: testSecret}, "section's name"},
		{"a broken file", "[a]\nx\n", Edit{Section: "a", Key: "x", Value: testSecret}, "line 2: no `=`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, []byte(c.in), 0o600); err != nil {
				t.Fatal(err)
			}
			// all or none: the good edit before it is not made either
			err := EditFile(path, []Edit{{Section: "a", Key: "good", Value: "1"}, c.e})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "cannot edit "+path) || strings.Contains(err.Error(), testSecret) {
				t.Errorf("error is %v", err)
			}
			if out, _ := os.ReadFile(path); string(out) != c.in {
				t.Errorf("file is %q", out)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".keyfob*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestEditCreates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir", "f")
	if err := EditFile(path, []Edit{{Section: "profile a", Key: "x", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("deleting from a missing file makes one")
	}
	if err := EditFile(path, []Edit{{Section: "profile a", Key: "x", Value: "1"}}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := os.Stat(filepath.Dir(path))
	if runtime.GOOS != "windows" && (info.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700) {
		t.Errorf("modes are %v and %v", info.Mode(), dir.Mode())
	}
}

func TestEditFollowsLinksAndKeepsModes(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	target, link, link2 := filepath.Join(dir, "store", "config"), filepath.Join(dir, "link"), filepath.Join(dir, "link2")
	if err := os.WriteFile(target, []byte("[a]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(target, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("store", "config"), link); err != nil {
		t.Skip(err)
	}
	if err := os.Symlink(link, link2); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && os.Getuid() == 0 {
		if err := os.Chown(target, 12345, 23456); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := os.Stat(target)
	if err := EditFile(link2, []Edit{{Section: "a", Key: "x", Value: "1"}}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{link, link2} {
		if info, err := os.Lstat(l); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is no link any more", l)
		}
	}
	text, _ := os.ReadFile(target)
	after, _ := os.Stat(target)
	if string(text) != "[a]\nx = 1\n" || before.Mode() != after.Mode() || owner(before) != owner(after) {
		t.Errorf("%q %v %s, was %v %s", text, after.Mode(), owner(after), before.Mode(), owner(before))
	}

	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink("store/none", dangling); err != nil {
		t.Fatal(err)
	}
	if err := EditFile(dangling, []Edit{{Section: "a", Key: "x", Value: "1"}}); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "store", "none")); string(text) != "[a]\nx = 1\n" {
		t.Errorf("where the link leads: %q", text)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if err := EditFile(loop, []Edit{{Section: "a", Key: "x", Value: "1"}}); err == nil || !strings.Contains(err.Error(), "too many symbolic links") {
		t.Errorf("a loop: %v", err)
	}
	if err := EditFile(dir, []Edit{{Section: "a", Key: "x", Value: "1"}}); err == nil {
		t.Error("a directory is edited")
	}
}

// owner is the owner and group of a file, where the platform has them.
func owner(info fs.FileInfo) string { return fmt.Sprintf("%v", ownerOf(info)) }

// The file is not written when nothing changes: its time tells others that
// nothing happened.
func TestEditOfNothingWritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("[a]\nx = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if err := EditFile(path, []Edit{{Section: "a", Key: "X", Value: "1"}}); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("the file was replaced")
	}
}

// drawText is a file of lines that mean something, in any order.
func drawText(t *rapid.T) string {
	line := rapid.SampledFrom([]string{
		"[a]", "[profile a]", "[profile  \"b c\"]", "[default]", "[profile default]", "[sso-session a]", "[services a] # c", "[a#b]", "[profile d$]",
		"x = 1", "X=2", "x =", "y = 3 # c", "y =\t; c", "region = eu-west-1", "s3 =", "s3 = v", "bad name = 1", "p=q=r", "key = a;b",
		"  x = 1", "\tz", "  # c", "  ; d", "    bad name = 2", "", "   ", "# c", ";d",
	})
	eol := rapid.SampledFrom([]string{"\n", "\n", "\n", "\r\n"})
	var b strings.Builder
	if rapid.Bool().Draw(t, "bom") {
		b.WriteString(byteOrderMark)
	}
	n := rapid.IntRange(0, 14).Draw(t, "lines")
	for i := range n {
		b.WriteString(line.Draw(t, "line"))
		if i < n-1 || rapid.Bool().Draw(t, "last end") {
			b.WriteString(eol.Draw(t, "end"))
		}
	}
	return b.String()
}

var (
	editSections = []string{"a", "profile a", "default", "profile default", "profile b c", "sso-session a", "new", "profile new"}
	editKeys     = []string{"x", "y", "s3", "region", "fresh"}
	editValues   = []string{"", "1", "v", "a b", "x=y", "one\ntwo", "one\n# two\n[three]", "a;b", "ü"}
)

// checkEdit holds for every edit that is made: reading back gives the value;
// every line that is not part of the setting is there byte for byte, in
// order; nothing but the setting, and a header where it was missing, is new.
func checkEdit(t interface{ Fatalf(string, ...any) }, in string, e Edit) {
	out, err := applyEdit(in, e)
	if err != nil {
		return
	}
	d, derr := readDocument(in)
	now, nerr := readDocument(out)
	if derr != nil || nerr != nil {
		t.Fatalf("a broken text was edited or made: %v, %v\n%q\n%q", derr, nerr, in, out)
	}
	section, key := d.effective(normalSection(e.Section)), strings.ToLower(e.Key)
	got, found := now.last(section, key)
	if found == e.Delete || !e.Delete && got != e.Value {
		t.Fatalf("reads back as %q, %v\n%q\n%q\n%+v", got, found, in, out, e)
	}
	// What was there and is none of the setting is there still.
	var kept []string
	mine := map[int]bool{}
	for i, l := range d.lines {
		if l.kind == lineProperty && l.section == section && l.key == key {
			mine[i] = true
			for _, j := range d.extent(i) {
				mine[j] = true
			}
		}
	}
	for i, l := range d.lines {
		if !mine[i] {
			kept = append(kept, in[l.start:l.end])
		}
	}
	rest := out
	for n, k := range kept {
		i := strings.Index(rest, k)
		if i < 0 {
			if n == len(kept)-1 && !strings.HasSuffix(k, "\n") {
				continue
			}
			t.Fatalf("line %q is gone\n%q\n%q\n%+v", k, in, out, e)
		}
		rest = rest[i+len(k):]
	}
	// And a second time nothing changes.
	if again, err := applyEdit(out, e); err != nil || again != out {
		t.Fatalf("a second edit changes the text: %v\n%q\n%q\n%+v", err, out, again, e)
	}
	if got, want := strings.Join(now.others(section, key), "|"), strings.Join(d.others(section, key), "|"); got != want && got != strings.TrimPrefix(want+"|"+section+"\x00", "|") {
		t.Fatalf("other settings changed\n%q\n%q\n%+v", in, out, e)
	}
}

func TestEditKeepsEverythingElse(t *testing.T) {
	made, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawText(t)
		e := Edit{Section: rapid.SampledFrom(editSections).Draw(t, "section"), Key: rapid.SampledFrom(editKeys).Draw(t, "key")}
		if e.Delete = rapid.Bool().Draw(t, "delete"); !e.Delete {
			e.Value = rapid.SampledFrom(editValues).Draw(t, "value")
		}
		checkEdit(t, in, e)
		if _, derr := readDocument(in); derr != nil {
			return
		}
		if _, err := applyEdit(in, e); err != nil {
			refused++
			t.Logf("%v", err)
			t.Fatalf("a good edit of a good file is refused: %v\n%q %+v", err, in, e)
		}
		made++
	})
	if made < 10 && !testing.Short() || refused > 0 {
		t.Errorf("%d edits made, %d refused: the test has proved nothing", made, refused)
	}
}

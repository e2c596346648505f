package winacl

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func sidOf(t *testing.T) string {
	t.Helper()
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	return me
}

func parse(t *testing.T, sddl string) *windows.SECURITY_DESCRIPTOR {
	t.Helper()
	if owner, ok := strings.CutSuffix(sddl, "D:NO_ACCESS_CONTROL"); ok { // a word that wine does not know
		whose, _, err := parse(t, owner).Owner()
		if err != nil {
			t.Fatal(err)
		}
		sd, err := windows.NewSecurityDescriptor()
		if err == nil {
			err = errors.Join(sd.SetOwner(whose, false), sd.SetDACL(nil, true, false))
		}
		if err != nil {
			t.Fatal(err)
		}
		return sd
	}
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		t.Fatalf("%s: %v", sddl, err)
	}
	return sd
}

func TestADescriptorNamesWhomTheDirectoryIsFor(t *testing.T) {
	me := sidOf(t)
	for _, c := range []struct {
		machine bool
		want    string
	}{
		{true, "D:PAI(A;OICI;FA;;;S-1-5-18)(A;OICI;FA;;;S-1-5-32-544)"},
		{false, "D:PAI(A;OICI;FA;;;" + me + ")(A;OICI;FA;;;S-1-5-18)(A;OICI;FA;;;S-1-5-32-544)"},
	} {
		got, err := Descriptor(c.machine)
		if err != nil || got != c.want {
			t.Errorf("machine %v: %q, %v; want %q", c.machine, got, err, c.want)
		}
		sd := parse(t, "O:"+me+got)
		if control, _, err := sd.Control(); err != nil || control&windows.SE_DACL_PROTECTED == 0 {
			t.Errorf("machine %v: the list is not protected from inheritance (%#x, %v)", c.machine, control, err)
		}
		if err := judgePrivate(`C:\x`, sd); err != nil {
			t.Errorf("machine %v: our own descriptor is refused: %v", c.machine, err)
		}
	}
}

func TestWideDirectoriesAreRefused(t *testing.T) {
	me := sidOf(t)
	const other = "S-1-5-21-1-2-3-1001"
	for _, c := range []struct {
		name, sddl string
		by         string // "" is taken
	}{
		{"as Windows makes them for a person", "O:" + me + "D:(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;FA;;;" + me + ")", ""},
		{"of administrators", "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", ""},
		{"for whoever makes something in it", "O:SYD:P(A;OICI;FA;;;SY)(A;OICIIO;FA;;;CO)", ""},
		{"that refuses others, too", "O:" + me + "D:P(D;;FA;;;WD)(A;;FA;;;" + me + ")", ""},
		{"another's", "O:" + other + "D:P(A;;FA;;;" + me + ")", "belongs to"},
		{"as below %ProgramData%", "O:BAD:(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)", "lets"},
		{"read by everyone", "O:" + me + "D:P(A;;FA;;;" + me + ")(A;;FR;;;WD)", "lets"},
		{"what is made in it is read by users", "O:" + me + "D:P(A;;FA;;;" + me + ")(A;OICIIO;GR;;;BU)", "lets"},
		{"entered by another user", "O:" + me + "D:P(A;;FX;;;" + other + ")", "lets"},
		{"without a list", "O:" + me + "D:NO_ACCESS_CONTROL", "lets"},
	} {
		err := judgePrivate(`C:\x`, parse(t, c.sddl))
		var wide *Error
		switch {
		case c.by == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.by != "" && (!errors.As(err, &wide) || !strings.Contains(err.Error(), c.by)):
			t.Errorf("%s: %v, want an *Error with %q", c.name, err, c.by)
		case c.by != "" && !strings.Contains(wide.Help, `icacls "C:\x" /inheritance:r /grant:r`):
			t.Errorf("%s: the hint is %q", c.name, wide.Help)
		}
	}
}

func TestWhoMayWriteAFile(t *testing.T) {
	me := sidOf(t)
	const other = "S-1-5-21-1-2-3-1001"
	const users = "O:SYD:P(A;;FA;;;SY)(A;;FA;;;BA)"
	for _, c := range []struct {
		name, sddl string
		rights     windows.ACCESS_MASK
		writable   bool
	}{
		{"administrators'", users, writing, false},
		{"read by users", users + "(A;;0x1200a9;;;BU)", writing, false},
		{"written by users", users + "(A;;FW;;;BU)", writing, true},
		{"appended to by one", users + "(A;;0x4;;;" + other + ")", writing, true},
		{"whose list one may change", users + "(A;;WD;;;" + other + ")", writing, true},
		{"which one may delete", users + "(A;;SD;;;" + other + ")", writing, true},
		{"another's", "O:" + other + "D:P(A;;FA;;;SY)", writing, true},
		{"the user's own", "O:" + me + "D:P(A;;FA;;;" + me + ")", writing, false},
		{"without a list", "O:SYD:NO_ACCESS_CONTROL", writing, true},
		{"a directory where users may make files", users + "(A;CI;DCLCRPCR;;;BU)", replacing, false},
		{"the same, for a file that is not there", users + "(A;CI;DCLCRPCR;;;BU)", writing, true},
		{"a directory where users may delete", users + "(A;;DT;;;BU)", replacing, true},
		{"C:\\", "O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464D:P(A;;LC;;;AU)(A;OICIIO;SDGXGWGR;;;AU)(A;;FA;;;SY)(A;OICIIO;GA;;;SY)(A;OICIIO;GA;;;BA)(A;;FA;;;BA)(A;OICI;0x1200a9;;;BU)", replacing, false},
	} {
		err := judgeWriting(`C:\x`, parse(t, c.sddl), c.rights, "may write to")
		if (err != nil) != c.writable {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAPrivateDirectoryIsMadeAndKeptPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "above", "keyfob")
	for range 2 { // the second finds it
		if err := MakePrivate(dir, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckPrivate(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if wine() { // it makes modes of access lists, and has no flag for a protected one
		t.Skip("wine keeps no access lists: whether this one is protected is not to be seen")
	}
	sd, err := read(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if control, _, err := sd.Control(); err != nil || control&windows.SE_DACL_PROTECTED == 0 {
		t.Errorf("its list inherits: %s", sd)
	}
}

func TestADirectoryForEverybodyIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keyfob")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	widen(t, dir)
	var wide *Error
	if err := MakePrivate(dir, false); !errors.As(err, &wide) {
		t.Fatalf("it was taken: %v", err)
	}
	if sd, err := read(dir, false); err != nil || judgePrivate(dir, sd) == nil {
		t.Errorf("its list was changed: %v, %v", sd, err)
	}
}

func TestAFileIsJudgedByAllThatLeadsToIt(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b")
	if err := MakePrivate(dir, false); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WritableByOthers(base); err != nil {
		t.Skipf("the temporary directory is no place for this: %v", err)
	}
	for _, path := range []string{file, filepath.Join(dir, "none"), filepath.Join(dir, "no", "ne"), strings.ToUpper(file), filepath.Join(dir, ".", "..", "b", "config.toml")} {
		if err := WritableByOthers(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	widen(t, file)
	if err := WritableByOthers(file); err == nil {
		t.Error("a file that everybody may write is taken")
	}
	widen(t, filepath.Dir(dir))
	if err := WritableByOthers(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory whose parent everybody may write is taken")
	}
}

// widen lets everybody do everything.
func widen(t *testing.T, path string) {
	t.Helper()
	sd := parse(t, "D:P(A;OICI;FA;;;WD)(A;OICI;FA;;;"+sidOf(t)+")")
	dacl, _, err := sd.DACL()
	if err == nil {
		err = windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestJunctionsAreFollowed(t *testing.T) {
	base := t.TempDir()
	if err := WritableByOthers(base); err != nil {
		t.Skipf("the temporary directory is no place for this: %v", err)
	}
	target, link := filepath.Join(base, "target"), filepath.Join(base, "link")
	if err := MakePrivate(target, false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cmd.exe", "/c", "mklink", "/J", link, target).CombinedOutput(); err != nil {
		t.Skipf("no junction can be made here: %v %s", err, out)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&(os.ModeSymlink|os.ModeIrregular) == 0 {
		t.Skipf("the junction is none: %v", err)
	}
	if err := WritableByOthers(filepath.Join(link, "f")); err != nil {
		t.Error(err)
	}
	widen(t, target)
	if err := WritableByOthers(filepath.Join(link, "f")); err == nil {
		t.Error("what a junction leads to is not judged")
	}
}

func TestALinkIsNoPrivateDirectory(t *testing.T) {
	var wide *Error
	if err := judgeKind(`C:\x`, windows.FILE_ATTRIBUTE_DIRECTORY|windows.FILE_ATTRIBUTE_REPARSE_POINT); !errors.As(err, &wide) || !strings.Contains(wide.Help, `rmdir "C:\x"`) {
		t.Errorf("%v", err)
	}
	if err := judgeKind(`C:\x`, windows.FILE_ATTRIBUTE_DIRECTORY); err != nil {
		t.Error(err)
	}
}

func TestAJunctionIsNoPrivateDirectory(t *testing.T) {
	base := t.TempDir()
	target, link := filepath.Join(base, "target"), filepath.Join(base, "link")
	if err := MakePrivate(target, false); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cmd.exe", "/c", "mklink", "/J", link, target).CombinedOutput(); err != nil {
		t.Skipf("no junction can be made here: %v %s", err, out)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&(os.ModeSymlink|os.ModeIrregular) == 0 {
		t.Skipf("the junction is none: %v", err)
	}
	var wide *Error
	for name, err := range map[string]error{"MakePrivate": MakePrivate(link, false), "CheckPrivate": CheckPrivate(link)} {
		if !errors.As(err, &wide) || !strings.Contains(err.Error(), "junction") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func wine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

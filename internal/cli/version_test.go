//go:build !windows

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
)

func TestVersionLine(t *testing.T) {
	for _, c := range []struct {
		settings []debug.BuildSetting
		want     string
		cgo      bool
	}{
		{nil, "keyfob 1.2.3", false},
		{[]debug.BuildSetting{{Key: "CGO_ENABLED", Value: "1"}}, "keyfob 1.2.3", true},
		{[]debug.BuildSetting{{Key: "CGO_ENABLED", Value: "0"}, {Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.time", Value: "2026-11-22T06:00:00Z"}, {Key: "vcs.modified", Value: "false"}},
			"keyfob 1.2.3 (0123456789ab, 2026-11-22)", false},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: "01"}, {Key: "vcs.modified", Value: "true"}}, "keyfob 1.2.3 (01, modified)", false},
	} {
		v := versionInfo{Version: "1.2.3"}
		v.built(c.settings)
		if v.line() != c.want || v.CGO != c.cgo {
			t.Errorf("%v: %q, cgo %v", c.settings, v.line(), v.CGO)
		}
	}
}

func TestKeystoresOfABuild(t *testing.T) {
	with := func(has, known bool) func() (bool, bool) { return func() (bool, bool) { return has, known } }
	for _, c := range []struct {
		goos string
		cgo  func() (bool, bool)
		want []string
		lack bool
	}{
		{"linux", nil, []string{"secret-service", "kwallet", "keyctl", "pass", "passphrase"}, false},
		{"windows", nil, []string{"wincred", "passphrase"}, false},
		{"darwin", with(true, true), []string{"keychain", "pass", "passphrase"}, false},
		{"darwin", with(false, true), []string{"pass", "passphrase"}, true},
		{"darwin", with(false, false), []string{"keychain", "pass", "passphrase"}, false}, // not known is not missing
		{"freebsd", nil, []string{"passphrase"}, false},
	} {
		there, missing := keystores(c.goos, c.cgo)
		if !slices.Equal(there, c.want) || (missing["keychain"] != "") != c.lack {
			t.Errorf("%s: %q, missing %v", c.goos, there, missing)
		}
	}
}

// What Go wrote into a program is found there: in this one, and in programs
// that are built either way and stripped.
func TestBuiltWithCgo(t *testing.T) {
	if _, known := builtWithCgo([]byte("no program \xff Go buildinf: of anything")); known {
		t.Error("it is known of no program")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ goos, cgo string }{{"linux", "0"}, {"darwin", "0"}, {"windows", "0"}} {
		out := filepath.Join(dir, c.goos)
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", out, "main.go")
		build.Dir, build.Env = dir, append(os.Environ(), "GOOS="+c.goos, "CGO_ENABLED="+c.cgo)
		if said, err := build.CombinedOutput(); err != nil {
			t.Skipf("the go command cannot build: %v %s", err, said)
		}
		program, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if has, known := builtWithCgo(program); !known || has {
			t.Errorf("%s: cgo %v, known %v", c.goos, has, known)
		}
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Skip("this program does not know how it was built")
	}
	want := slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
	// This program also has the mark as a constant of the code that looks for it.
	if has, known := builtWithCgo(program); !known || has != want {
		t.Errorf("of this program: cgo %v, known %v, want %v", has, known, want)
	}
}

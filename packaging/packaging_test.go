// Package packaging_test builds what packaging/build.sh makes for one
// platform, and looks into it.
package packaging_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

const version = "1.2.3"

// built is one run of build.sh, which all tests look at.
var built struct {
	once       sync.Once
	out, stage string
	said       string
	skip, fail string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.out != "" {
		_ = os.RemoveAll(filepath.Dir(built.out))
	}
	os.Exit(code)
}

// build runs packaging/build.sh for linux/amd64, once, and returns where the
// release and what it was made of are.
func build(t *testing.T) (out, stage string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the programs")
	}
	if runtime.GOOS == "windows" {
		t.Skip("build.sh takes a Unix shell")
	}
	for _, tool := range []string{"bash", "git", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "keyfob-packaging-")
		if err != nil {
			built.fail = err.Error()
			return
		}
		built.out, built.stage = filepath.Join(dir, "out"), filepath.Join(dir, "stage")
		key := filepath.Join(dir, "key")
		if said, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			built.fail = string(said)
			return
		}
		if said, err := exec.Command("go", "-C", "tools", "mod", "download").CombinedOutput(); err != nil {
			built.skip = "the modules of packaging/tools can't be had: " + string(said)
			return
		}
		said, err := exec.Command("./build.sh", "--version", version, "--platform", "linux/amd64", "--out", built.out, "--keep", built.stage, "--sign-key", key).CombinedOutput()
		built.said = string(said)
		if err != nil {
			built.fail = "build.sh: " + err.Error() + "\n" + built.said
		}
	})
	if built.skip != "" {
		t.Skip(built.skip)
	}
	if built.fail != "" {
		t.Fatal(built.fail)
	}
	return built.out, built.stage
}

// file is one of an archive.
type file struct {
	mode    int64
	uid     int
	user    string
	link    string
	content []byte
}

// untar reads a tar archive.
func untar(t *testing.T, r io.Reader) map[string]file {
	t.Helper()
	files := map[string]file{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(strings.TrimPrefix(h.Name, "./"), "/")] = file{mode: h.Mode, uid: h.Uid, user: h.Uname, link: h.Linkname, content: b}
	}
}

func untarGzip(t *testing.T, b []byte) map[string]file {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return untar(t, gz)
}

func read(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// one finds the only file of the release with this pattern.
func one(t *testing.T, out, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(out, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v %v", pattern, found, err)
	}
	return found[0]
}

// unar takes a .deb apart (deb(5), ar(5)).
func unar(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	parts := map[string][]byte{}
	b, ok := bytes.CutPrefix(b, []byte("!<arch>\n"))
	if !ok {
		t.Fatal("no ar archive")
	}
	for len(b) >= 60 {
		name := strings.TrimRight(string(b[:16]), " /")
		size := 0
		for _, c := range strings.TrimSpace(string(b[48:58])) {
			size = size*10 + int(c-'0')
		}
		if 60+size > len(b) {
			t.Fatalf("%s is cut off", name)
		}
		parts[name] = b[60 : 60+size]
		b = b[60+size:]
		if size%2 == 1 && len(b) > 0 {
			b = b[1:]
		}
	}
	return parts
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// installed is what the Linux packages have in common.
var installed = map[string]int64{
	"usr/bin/keyfob":                                  0o755,
	"usr/bin/keyfobd":                                 0o755,
	"usr/bin/keyfob-keyring":                          0o755,
	"usr/bin/keyfob-signin":                           0o755,
	"usr/share/bash-completion/completions/keyfob":    0o644,
	"usr/share/fish/vendor_completions.d/keyfob.fish": 0o644,
	"usr/share/doc/keyfob/THIRD-PARTY-NOTICES.txt":    0o644,
	"usr/share/man/man1/keyfob.1.gz":                  0o644,
	"usr/share/man/man8/keyfobd.8.gz":                 0o644,
	"usr/share/man/man8/keyfob-keyring.8.gz":          0o644,
	"usr/share/man/man1/keyfob-signin.1.gz":           0o644,
	"etc/keyfob/config.toml":                          0o644,
}

var systemdFiles = map[string]string{
	"usr/lib/systemd/system/keyfob.service": "systemd/system/keyfob.service",
	"usr/lib/systemd/system/keyfob.socket":  "systemd/system/keyfob.socket",
	"usr/lib/systemd/user/keyfob.service":   "systemd/user/keyfob.service",
	"usr/lib/systemd/user/keyfob.socket":    "systemd/user/keyfob.socket",
	"usr/lib/sysusers.d/keyfob.conf":        "systemd/sysusers.conf",
}

func checkInstalled(t *testing.T, files map[string]file) {
	t.Helper()
	size := 0
	for name, mode := range installed {
		f, ok := files[name]
		if !ok || f.mode&0o7777 != mode || f.uid != 0 || len(f.content) == 0 {
			t.Errorf("%s: there %v, mode %o, user %d, %d bytes", name, ok, f.mode, f.uid, len(f.content))
		}
	}
	for name, f := range files {
		size += len(f.content)
		if f.mode&0o022 != 0 || f.mode&0o7000 != 0 {
			t.Errorf("%s has mode %o", name, f.mode)
		}
		if strings.Contains(name, "fakeaws") {
			t.Errorf("%s is packaged", name)
		}
	}
	if size > 40<<20 {
		t.Errorf("%d MB installed", size>>20)
	}
}

func TestDeb(t *testing.T) {
	t.Parallel()
	out, stage := build(t)
	parts := unar(t, read(t, one(t, out, "keyfob_"+version+"-1_amd64.deb")))
	if string(parts["debian-binary"]) != "2.0\n" {
		t.Errorf("debian-binary: %q", parts["debian-binary"])
	}
	data, control := untarGzip(t, parts["data.tar.gz"]), untarGzip(t, parts["control.tar.gz"])
	checkInstalled(t, data)
	for name, source := range systemdFiles {
		if f, ok := data[name]; !ok || f.mode&0o777 != 0o644 || !bytes.Equal(f.content, read(t, source)) {
			t.Errorf("%s is not %s", name, source)
		}
	}
	if got := data["usr/bin/keyfobd"].content; sum(got) != sum(read(t, stage, "bin", "linux-amd64", "keyfobd")) {
		t.Error("keyfobd is not the one that was built")
	}
	for _, line := range []string{"Package: keyfob", "Version: " + version + "-1", "Architecture: amd64", "Recommends: ca-certificates"} {
		if !strings.Contains(string(control["control"].content), "\n"+line+"\n") && !strings.HasPrefix(string(control["control"].content), line+"\n") {
			t.Errorf("control has no line %q:\n%s", line, control["control"].content)
		}
	}
	if got := strings.TrimSpace(string(control["conffiles"].content)); got != "/etc/keyfob/config.toml" {
		t.Errorf("conffiles: %q", got)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if f := control[script]; f.mode&0o777 != 0o755 || !bytes.HasPrefix(f.content, []byte("#!/bin/sh\nset -e\n")) || bytes.Contains(f.content, []byte("#use")) {
			t.Errorf("%s: mode %o\n%s", script, f.mode, f.content)
		}
	}
	if !strings.Contains(string(data["usr/share/doc/keyfob/copyright"].content), "github.com/sirupsen/logrus v") {
		t.Error("copyright does not name the modules")
	}
}

func TestAlpinePackage(t *testing.T) {
	t.Parallel()
	out, _ := build(t)
	files := untarGzip(t, read(t, one(t, out, "keyfob_"+version+"-r1_x86_64.apk")))
	delete(files, ".PKGINFO")
	for name := range files {
		if strings.HasPrefix(name, ".") {
			delete(files, name)
		}
		if strings.Contains(name, "systemd") {
			t.Errorf("%s is in the package", name)
		}
	}
	checkInstalled(t, files)
	if f := files["etc/init.d/keyfob"]; f.mode&0o777 != 0o755 || !bytes.Equal(f.content, read(t, "openrc", "keyfob")) {
		t.Errorf("etc/init.d/keyfob: mode %o", f.mode)
	}
}

func TestArchPackage(t *testing.T) {
	t.Parallel()
	out, _ := build(t)
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("zstd is not installed")
	}
	plain, err := exec.Command("zstd", "-dc", one(t, out, "keyfob-"+version+"-1-x86_64.pkg.tar.zst")).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, bytes.NewReader(plain))
	script := files[".INSTALL"].content
	for _, f := range []string{".INSTALL", ".MTREE", ".PKGINFO"} {
		delete(files, f)
	}
	checkInstalled(t, files)
	for name := range systemdFiles {
		if _, ok := files[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	check := exec.Command("bash", "-n")
	check.Stdin = bytes.NewReader(script)
	if said, err := check.CombinedOutput(); err != nil || !bytes.Contains(script, []byte("post_upgrade()")) {
		t.Errorf(".INSTALL: %s", said)
	}
}

// TestRPM installs the package into a root of its own.
func TestRPM(t *testing.T) {
	t.Parallel()
	out, _ := build(t)
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Skip("rpm is not installed")
	}
	path := one(t, out, "keyfob-"+version+"-1.x86_64.rpm")
	info, err := exec.Command("rpm", "-qp", "--queryformat", "%{NAME} %{VERSION} %{BUILDHOST}", path).Output()
	if err != nil || string(info) != "keyfob "+version+" localhost" {
		t.Errorf("%q, %v", info, err)
	}
	if os.Getuid() != 0 {
		t.Skip("a trial installation takes root")
	}
	root := t.TempDir()
	rpm := func(args ...string) string {
		t.Helper()
		said, err := exec.Command("rpm", append([]string{"--root", root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %v: %s", args, said)
		}
		return string(said)
	}
	rpm("--initdb")
	rpm("--nodeps", "--noscripts", "--ignorearch", "-i", path)
	for name, mode := range installed {
		if st, err := os.Stat(filepath.Join(root, name)); err != nil || int64(st.Mode().Perm()) != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if said := rpm("--nodeps", "-V", "keyfob"); strings.TrimSpace(said) != "" {
		t.Errorf("rpm -V: %s", said)
	}
	if said := rpm("-qc", "keyfob"); strings.TrimSpace(said) != "/etc/keyfob/config.toml" {
		t.Errorf("configuration files: %s", said)
	}
	rpm("--noscripts", "-e", "keyfob")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/keyfob")); !os.IsNotExist(err) {
		t.Errorf("after the removal: %v", err)
	}
}

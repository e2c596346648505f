package packaging_test

import (
	"archive/zip"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tools runs packaging/tools over a stage, with the arguments that build.sh
// gave it, and returns where the release is.
func tools(t *testing.T, stage string) string {
	t.Helper()
	out := t.TempDir()
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	args := append(strings.Fields(string(read(t, built.stage, "arguments"))), "-source", source, "-stage", stage, "-out", out, "-conf", "release.conf")
	if said, err := exec.Command(filepath.Join(built.stage, "tools"), args...).CombinedOutput(); err != nil {
		t.Fatalf("tools: %s", said)
	}
	return out
}

// TestSameBytes packs the same programs once more.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	out, stage := build(t)
	again := tools(t, copyStage(t, stage))
	want := read(t, out, "SHA256SUMS")
	if got := read(t, again, "SHA256SUMS"); !bytes.Equal(got, want) {
		t.Errorf("first\n%s\nthen\n%s", want, got)
	}
}

// copyStage is what was built, in another place and made at another time.
func copyStage(t *testing.T, stage string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(stage)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestChecksumsAndSignature(t *testing.T) {
	t.Parallel()
	out, _ := build(t)
	listed := 0
	for line := range strings.Lines(string(read(t, out, "SHA256SUMS"))) {
		want, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok || sum(read(t, out, filepath.FromSlash(name))) != want {
			t.Errorf("%s has another checksum", name)
		}
		listed++
	}
	if listed < 9 {
		t.Errorf("%d files are listed", listed)
	}
	// As docs/install.md says it.
	verify := func(content []byte) error {
		cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", filepath.Join(out, "allowed_signers"), "-I", "maintainers@keyfob.invalid",
			"-n", "keyfob-release", "-s", filepath.Join(out, "SHA256SUMS.sig"))
		cmd.Stdin = bytes.NewReader(content)
		return cmd.Run()
	}
	if err := verify(read(t, out, "SHA256SUMS")); err != nil {
		t.Errorf("the signature: %v", err)
	}
	if err := verify(append(read(t, out, "SHA256SUMS"), '\n')); err == nil {
		t.Error("a changed list has a good signature")
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	out, _ := build(t)
	top := "keyfob_" + version + "_linux_amd64/"
	files := untarGzip(t, read(t, one(t, out, "keyfob_"+version+"_linux_amd64.tar.gz")))
	for name, f := range files {
		if !strings.HasPrefix(name, top) || f.uid != 0 || f.user != "" {
			t.Errorf("%s of user %d %s", name, f.uid, f.user)
		}
	}
	for _, name := range []string{"keyfob", "keyfobd", "keyfob-keyring", "keyfob-signin"} {
		if f := files[top+name]; f.mode&0o777 != 0o755 || len(f.content) == 0 {
			t.Errorf("%s: mode %o", name, f.mode)
		}
	}
	for _, name := range []string{"README.md", "INSTALL.md", "THIRD-PARTY-NOTICES.txt", "completions/keyfob.bash", "completions/_keyfob", "completions/keyfob.fish"} {
		if f := files[top+name]; f.mode&0o777 != 0o644 || len(f.content) == 0 {
			t.Errorf("%s: mode %o", name, f.mode)
		}
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "keyfob")
	if err := os.WriteFile(program, files[top+"keyfob"].content, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "version")
	cmd.Env = []string{"HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
	if said, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(said), version) {
		t.Errorf("keyfob version: %s %v", said, err)
	}
}

// TestImage reads the image as an engine does: from index.json by digests.
func TestImage(t *testing.T) {
	t.Parallel()
	out, stage := build(t)
	files := untar(t, bytes.NewReader(read(t, one(t, out, "keyfob_"+version+"_image_amd64.tar"))))
	type descriptor struct {
		Digest string
		Size   int
	}
	blob := func(d descriptor) []byte {
		t.Helper()
		b := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")].content
		if "sha256:"+sum(b) != d.Digest || len(b) != d.Size {
			t.Fatalf("%s is not there", d.Digest)
		}
		return b
	}
	parse := func(b []byte, into any) {
		t.Helper()
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests []descriptor }
	parse(files["index.json"].content, &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d manifests", len(index.Manifests))
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	parse(blob(index.Manifests[0]), &manifest)
	var config struct {
		Architecture, OS string
		Config           struct {
			User            string
			Entrypoint, Env []string
		}
	}
	parse(blob(manifest.Config), &config)
	if c := config.Config; config.OS != "linux" || config.Architecture != "amd64" || c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/usr/bin/keyfobd"}) ||
		!slices.Contains(c.Env, "KEYFOB_DATA_DIR=/var/lib/keyfob/data") {
		t.Errorf("%+v", config)
	}
	root := untarGzip(t, blob(manifest.Layers[0]))
	want := []string{"etc/group", "etc/keyfob/config.toml", "etc/passwd", "etc/ssl/certs/ca-certificates.crt", "usr/bin/keyfob", "usr/bin/keyfob-keyring", "usr/bin/keyfobd",
		"usr/share/doc/keyfob/THIRD-PARTY-NOTICES.txt"}
	for name, f := range root {
		if len(f.content) > 0 && name != "usr/share/doc/keyfob/LICENSE" && !slices.Contains(want, name) {
			t.Errorf("%s is in the image", name)
		}
	}
	for _, name := range want {
		if len(root[name].content) == 0 {
			t.Errorf("%s is missing", name)
		}
	}
	if f := root["var/lib/keyfob/"]; f.uid != 65532 || f.mode&0o777 != 0o700 {
		t.Errorf("var/lib/keyfob: user %d, mode %o", f.uid, f.mode)
	}
	if n := bytes.Count(root["etc/ssl/certs/ca-certificates.crt"].content, []byte("BEGIN CERTIFICATE")); n < 50 {
		t.Errorf("%d authorities", n)
	}
	if sum(root["usr/bin/keyfobd"].content) != sum(read(t, stage, "bin", "linux-amd64", "keyfobd")) {
		t.Error("keyfobd is not the one that was built")
	}
}

func TestBillOfMaterials(t *testing.T) {
	t.Parallel()
	out, stage := build(t)
	var bom struct {
		BOMFormat, SpecVersion, SerialNumber string
		Components                           []struct {
			Name, Version, Purl string
			Licenses            []struct{ License struct{ ID string } }
			Hashes              []struct{ Content string }
		}
	}
	if err := json.Unmarshal(read(t, one(t, out, "keyfob_"+version+"_sbom.cdx.json")), &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || bom.SpecVersion != "1.5" || !strings.HasPrefix(bom.SerialNumber, "urn:uuid:") || len(bom.SerialNumber) != 45 {
		t.Errorf("%s %s %s", bom.BOMFormat, bom.SpecVersion, bom.SerialNumber)
	}
	has := map[string]string{}
	hashes := map[string]bool{}
	for _, c := range bom.Components {
		has[c.Name] = c.Version
		for _, h := range c.Hashes {
			hashes[h.Content] = true
		}
		if strings.Contains(c.Purl, "github.com/") && len(c.Licenses) == 0 {
			t.Errorf("%s has no licence", c.Name)
		}
	}
	program := filepath.Join(stage, "bin", "linux-amd64", "keyfob-keyring")
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range info.Deps {
		if has[d.Path] != d.Version {
			t.Errorf("%s %s is listed as %q", d.Path, d.Version, has[d.Path])
		}
	}
	if !hashes[sum(read(t, program))] {
		t.Error("the checksum of keyfob-keyring is not listed")
	}
}

// TestAllManifests packs the Linux programs in the place of all, to have every
// manifest.
func TestAllManifests(t *testing.T) {
	t.Parallel()
	_, stage := build(t)
	dir := copyStage(t, stage)
	for _, platform := range []string{"linux-arm64", "darwin-amd64", "darwin-arm64", "windows-amd64", "windows-arm64"} {
		if err := os.MkdirAll(filepath.Join(dir, "bin", platform), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, program := range []string{"keyfob", "keyfobd", "keyfob-keyring", "keyfob-signin"} {
			name := program
			if strings.HasPrefix(platform, "windows") {
				name += ".exe"
			}
			if err := os.Link(filepath.Join(dir, "bin", "linux-amd64", program), filepath.Join(dir, "bin", platform, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	out := tools(t, dir)
	upper := func(name string) string { return strings.ToUpper(sum(read(t, out, name))) }
	lower := func(name string) string { return sum(read(t, out, name)) }
	winget := "winget/manifests/k/keyfob/keyfob/" + version + "/keyfob.keyfob"
	for name, want := range map[string][]string{
		"homebrew/keyfob.rb":               {`url "https://keyfob.invalid/releases/v1.2.3/keyfob_1.2.3_source.tar.gz"`, lower("keyfob_1.2.3_source.tar.gz"), `CGO_ENABLED: OS.mac? ? "1" : "0"`},
		"scoop/keyfob.json":                {lower("keyfob_1.2.3_windows_amd64.zip"), lower("keyfob_1.2.3_windows_arm64.zip"), `"extract_dir": "keyfob_1.2.3_windows_amd64"`},
		winget + ".yaml":                   {"PackageVersion: 1.2.3"},
		winget + ".installer.yaml":         {upper("keyfob_1.2.3_windows_amd64.zip"), upper("keyfob_1.2.3_windows_arm64.zip"), `keyfob_1.2.3_windows_arm64\keyfob.exe`},
		winget + ".locale.en-US.yaml":      {"PackageLocale: en-US"},
		"nix/keyfob.nix":                   {"keyfob_1.2.3_linux_arm64.tar.gz", "keyfob_1.2.3_darwin_arm64_passphrase-only.tar.gz", `hash = "sha256-`},
		"keyfob_" + version + "_image.tar": {"linux"},
	} {
		text := string(read(t, out, filepath.FromSlash(name)))
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s has no %q", name, w)
			}
		}
		if strings.Contains(text, "<<") && !strings.HasSuffix(name, ".tar") {
			t.Errorf("%s is not filled in", name)
		}
	}
	var scoop map[string]any
	if err := json.Unmarshal(read(t, out, "scoop", "keyfob.json"), &scoop); err != nil || scoop["version"] != version {
		t.Errorf("scoop: %v", err)
	}
	// A darwin archive made elsewhere says what it can't.
	files := untarGzip(t, read(t, out, "keyfob_1.2.3_darwin_arm64_passphrase-only.tar.gz"))
	if !strings.Contains(string(files["keyfob_1.2.3_darwin_arm64_passphrase-only/PASSPHRASE-ONLY.txt"].content), "passphrase alone") {
		t.Error("the darwin archive does not say that it has no keychain")
	}
	zr, err := zip.OpenReader(filepath.Join(out, "keyfob_1.2.3_windows_amd64.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	names := []string{}
	for _, f := range zr.File {
		names = append(names, strings.TrimPrefix(f.Name, "keyfob_1.2.3_windows_amd64/"))
	}
	for _, want := range []string{"keyfob.exe", "keyfobd.exe", "keyfob-keyring.exe", "keyfob-signin.exe", "completions/keyfob.ps1", "INSTALL.md"} {
		if !slices.Contains(names, want) {
			t.Errorf("the zip has no %s: %v", want, names)
		}
	}
	for file, checker := range map[string][]string{"homebrew/keyfob.rb": {"ruby", "-c"}, "nix/keyfob.nix": {"nix-instantiate", "--parse"}} {
		if _, err := exec.LookPath(checker[0]); err != nil {
			continue // only a syntax check
		}
		if said, err := exec.Command(checker[0], append(checker[1:], filepath.Join(out, file))...).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", file, said)
		}
	}
}

// TestReleaseRefuses: what a release must not be.
func TestReleaseRefuses(t *testing.T) {
	t.Parallel()
	build(t)
	for name, args := range map[string][]string{
		"version": {"--version", "1.2", "--out", t.TempDir()},
		"release": {"--version", "999.0.0", "--release", "--out", t.TempDir()},
		"out":     {"--version", version, "--out", "."},
		"usage":   {"--nonsense"},
	} {
		said, err := exec.Command("./build.sh", args...).CombinedOutput()
		if err == nil || !strings.Contains(string(said), "packaging: cannot") {
			t.Errorf("%s: %v %s", name, err, said)
		}
	}
}

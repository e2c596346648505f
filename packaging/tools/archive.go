package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// entry is one file, or with a trailing slash one directory, of an archive.
type entry struct {
	name    string // slash-separated, relative
	mode    int64
	uid     int
	content []byte
}

// passphraseOnly is what a darwin archive without the keychain says.
const passphraseOnly = `These programs were built on another system than macOS, without cgo: they
cannot use the keychain. The vault opens with a passphrase alone:

    keyfob --keystore passphrase unlock
    echo '[keystore]' >>"$HOME/Library/Application Support/keyfob/config.toml"
    echo 'backend = "passphrase"' >>"$HOME/Library/Application Support/keyfob/config.toml"

With backend = "auto" or "keychain" they say that this build has no keychain,
and never fall to something weaker. A build with the keychain is made on a Mac:
by Homebrew, or by packaging/build.sh --native.
`

// archiveName is the name of a platform's archive, without its extension. It
// is also the directory that everything in it stands in.
func (r *release) archiveName(p platform) string {
	name := fmt.Sprintf("keyfob_%s_%s_%s", r.version, p.os, p.arch)
	if p.os == "darwin" && !p.keychain {
		name += "_passphrase-only"
	}
	return name
}

// archives packs tar.gz for Unix and zip for Windows.
func (r *release) archives() error {
	for _, p := range r.platforms {
		entries, err := r.archiveEntries(p)
		if err != nil {
			return err
		}
		name := r.archiveName(p)
		for i := range entries {
			entries[i].name = name + "/" + entries[i].name
		}
		extension, pack := ".tar.gz", tarGzip
		if p.os == "windows" {
			extension, pack = ".zip", zipped
		}
		b, err := pack(entries, r.date)
		if err != nil {
			return err
		}
		if err := r.write(name+extension, b); err != nil {
			return err
		}
	}
	return nil
}

// archiveEntries is what a platform's archive holds.
func (r *release) archiveEntries(p platform) ([]entry, error) {
	var entries []entry
	add := func(name, file string, mode int64) error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		entries = append(entries, entry{name: name, mode: mode, content: b})
		return nil
	}
	for _, name := range programs {
		file := r.program(p, name)
		if err := add(filepath.Base(file), file, 0o755); err != nil {
			return nil, err
		}
	}
	docs := map[string]string{"README.md": "README.md", "INSTALL.md": "docs/install.md", "LICENSE": "LICENSE"}
	for _, name := range []string{"README.md", "INSTALL.md", "LICENSE"} {
		err := add(name, filepath.Join(r.source, docs[name]), 0o644)
		if err != nil && !(name == "LICENSE" && errors.Is(err, os.ErrNotExist)) {
			return nil, err
		}
	}
	if err := add("THIRD-PARTY-NOTICES.txt", filepath.Join(r.stage, "THIRD-PARTY-NOTICES.txt"), 0o644); err != nil {
		return nil, err
	}
	if p.os == "darwin" && !p.keychain {
		entries = append(entries, entry{name: "PASSPHRASE-ONLY.txt", mode: 0o644, content: []byte(passphraseOnly)})
	}
	dirs := []string{"completions", "man"}
	if p.os == "windows" {
		dirs = dirs[:1]
	}
	for _, dir := range dirs {
		files, err := os.ReadDir(filepath.Join(r.stage, dir))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			powershell := strings.HasSuffix(f.Name(), ".ps1")
			if dir == "completions" && powershell != (p.os == "windows") {
				continue
			}
			if err := add(dir+"/"+f.Name(), filepath.Join(r.stage, dir, f.Name()), 0o644); err != nil {
				return nil, err
			}
		}
	}
	return entries, nil
}

// sourceArchive packs the commit, for those who build from source.
func (r *release) sourceArchive() error {
	if r.commit == "" {
		return nil // not in a git repository
	}
	prefix := "keyfob-" + r.version
	cmd := exec.Command("git", "-C", r.source, "archive", "--format=tar", "--prefix="+prefix+"/", r.commit)
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("git archive: %w", err)
	}
	gz, err := compressed(b)
	if err != nil {
		return err
	}
	return r.write("keyfob_"+r.version+"_source.tar.gz", gz)
}

func compressed(b []byte) ([]byte, error) {
	var buf bytes.Buffer
	gz, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := gz.Write(b); err != nil {
		return nil, err
	}
	err = gz.Close()
	return buf.Bytes(), err
}

func tarGzip(entries []entry, date time.Time) ([]byte, error) {
	b, err := tarred(entries, date)
	if err != nil {
		return nil, err
	}
	return compressed(b)
}

// tarred packs entries by name, and the directories above each.
func tarred(entries []entry, date time.Time) ([]byte, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range withParents(entries) {
		h := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.uid, Gid: e.uid, ModTime: date, Size: int64(len(e.content)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := tw.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := tw.Close()
	return buf.Bytes(), err
}

func withParents(entries []entry) []entry {
	all := slices.Clone(entries)
	have := map[string]bool{}
	for _, e := range entries {
		have[e.name] = true
	}
	for _, e := range entries {
		for dir := path.Dir(strings.TrimSuffix(e.name, "/")); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if !have[dir+"/"] {
				have[dir+"/"] = true
				all = append(all, entry{name: dir + "/", mode: 0o755})
			}
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return all
}

func zipped(entries []entry, date time.Time) ([]byte, error) {
	var buf bytes.Buffer
	zw := zip.NewWriter(&buf)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: date}
		h.SetMode(os.FileMode(e.mode))
		w, err := zw.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, bytes.NewReader(e.content)); err != nil {
			return nil, err
		}
	}
	err := zw.Close()
	return buf.Bytes(), err
}

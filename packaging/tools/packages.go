package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/apk"
	_ "github.com/goreleaser/nfpm/v2/arch"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// packages makes deb, rpm, apk and Arch packages as packaging/nfpm.yaml says.
func (r *release) packages() error {
	linux := r.of("linux")
	if len(linux) == 0 {
		return nil
	}
	if err := r.packageTexts(); err != nil {
		return err
	}
	for _, p := range linux {
		for _, format := range []string{"deb", "rpm", "apk", "archlinux"} {
			if err := r.pack(p, format); err != nil {
				return fmt.Errorf("%s for %s: %w", format, p, err)
			}
		}
	}
	return nil
}

// packageTexts writes what packages hold besides the programs: compressed
// manual pages, the copyright file and the changelog.
func (r *release) packageTexts() error {
	pages, err := os.ReadDir(filepath.Join(r.stage, "man"))
	if err != nil {
		return err
	}
	dir := filepath.Join(r.stage, "package")
	if err := os.MkdirAll(filepath.Join(dir, "man"), 0o755); err != nil {
		return err
	}
	for _, page := range pages {
		b, err := os.ReadFile(filepath.Join(r.stage, "man", page.Name()))
		if err != nil {
			return err
		}
		if b, err = compressed(b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "man", page.Name()+".gz"), b, 0o644); err != nil {
			return err
		}
	}
	copyright, err := r.copyright()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "copyright"), copyright, 0o644); err != nil {
		return err
	}
	changelog := fmt.Sprintf("---\n- semver: %s\n  date: %s\n  packager: %q\n  deb:\n    urgency: medium\n    distributions:\n      - stable\n  changes:\n    - note: \"Release %s: %s\"\n",
		r.version, r.date.Format("2006-01-02T15:04:05Z"), r.conf["MAINTAINER"], r.version, r.conf["HOMEPAGE"])
	return os.WriteFile(filepath.Join(dir, "changelog.yaml"), []byte(changelog), 0o644)
}

// copyright is Debian's file of that name: what is keyfob's, and which licences
// the modules have that are linked in.
func (r *release) copyright() ([]byte, error) {
	licence, err := os.ReadFile(filepath.Join(r.source, "LICENSE"))
	if os.IsNotExist(err) {
		licence, err = []byte("No licence has been chosen yet: all rights are reserved.\n"), nil
	}
	if err != nil {
		return nil, err
	}
	modules, err := r.modules()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "keyfob, from %s\n\nCopyright %d the authors of keyfob\n\n%s\n", r.conf["HOMEPAGE"], r.date.Year(), licence)
	b.WriteString("The programs hold the Go standard library (BSD-3-Clause) and the modules below. Their\n" +
		"copyright notices and licences are in /usr/share/doc/keyfob/THIRD-PARTY-NOTICES.txt; on\n" +
		"Debian systems the Apache License 2.0 is also in /usr/share/common-licenses/Apache-2.0.\n\n")
	for _, m := range modules {
		licence := m.licence
		if licence == "" {
			licence = "see there"
		}
		fmt.Fprintf(&b, "  %s %s: %s\n", m.path, m.version, licence)
	}
	return b.Bytes(), nil
}

// pack makes one package.
func (r *release) pack(p platform, format string) error {
	path := filepath.Join(r.source, "packaging", "nfpm.yaml")
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	values := map[string]string{"ARCH": p.arch, "VERSION": r.version}
	config, err := nfpm.ParseWithEnvMapping(f, func(name string) string {
		if v, ok := values[name]; ok {
			return v
		}
		return r.conf[name]
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	info, err := config.Get(format)
	if err != nil {
		return err
	}
	if info.MTime = r.date; format != "deb" { // deb has the file copyright for it
		info.License = r.conf["LICENSE"]
	}
	info.RPM.BuildHost = "localhost" // not this machine's name
	info.Changelog = r.place(p, info.Changelog)
	pages, err := filepath.Glob(filepath.Join(r.stage, "package", "man", "*.gz"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		name := filepath.Base(page)
		section := strings.TrimPrefix(filepath.Ext(strings.TrimSuffix(name, ".gz")), ".")
		info.Contents = append(info.Contents, &files.Content{Source: page, Destination: "/usr/share/man/man" + section + "/" + name, FileInfo: &files.ContentFileInfo{Mode: 0o644}})
	}
	for _, c := range info.Contents {
		if filepath.IsAbs(c.Source) {
			continue
		}
		if c.Type != "symlink" && c.Type != "dir" {
			c.Source = r.place(p, c.Source)
		}
	}
	info.Scripts.PreInstall = r.place(p, info.Scripts.PreInstall)
	info.Scripts.PostInstall = r.place(p, info.Scripts.PostInstall)
	info.Scripts.PreRemove = r.place(p, info.Scripts.PreRemove)
	info.Scripts.PostRemove = r.place(p, info.Scripts.PostRemove)
	info.APK.Scripts.PostUpgrade = r.place(p, info.APK.Scripts.PostUpgrade)
	info.ArchLinux.Scripts.PostUpgrade = r.place(p, info.ArchLinux.Scripts.PostUpgrade)
	info = nfpm.WithDefaults(info)
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := packager.Package(info, &b); err != nil {
		return err
	}
	return r.write(packager.ConventionalFileName(info), b.Bytes())
}

// place finds a file that nfpm.yaml names: bin/ is of the platform,
// repository/ of the repository, everything else of what was built.
func (r *release) place(p platform, name string) string {
	if name == "" {
		return ""
	}
	if rest, ok := strings.CutPrefix(name, "bin/"); ok {
		return r.program(p, rest)
	}
	if rest, ok := strings.CutPrefix(name, "repository/"); ok {
		return filepath.Join(r.source, rest)
	}
	return filepath.Join(r.stage, name)
}

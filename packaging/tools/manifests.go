package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// manifest is one template and what it becomes.
type manifest struct {
	template, file string
	needs          []string // archives, by platform; "source" is the source's
}

// manifests fills in the templates of Homebrew, Scoop, WinGet and Nix. One
// whose archives were not all built is left out, and said.
func (r *release) manifests() error {
	archives := map[string]string{}
	for _, p := range r.platforms {
		extension := ".tar.gz"
		if p.os == "windows" {
			extension = ".zip"
		}
		archives[p.String()] = r.archiveName(p) + extension
	}
	if r.commit != "" {
		archives["source"] = "keyfob_" + r.version + "_source.tar.gz"
	}
	winget := "winget/manifests/k/keyfob/keyfob/" + r.version + "/keyfob.keyfob"
	windows := []string{"windows-amd64", "windows-arm64"}
	for _, m := range []manifest{
		{"homebrew/keyfob.rb", "homebrew/keyfob.rb", []string{"source"}},
		{"scoop/keyfob.json", "scoop/keyfob.json", windows},
		{"winget/version.yaml", winget + ".yaml", windows},
		{"winget/installer.yaml", winget + ".installer.yaml", windows},
		{"winget/locale.yaml", winget + ".locale.en-US.yaml", windows},
		{"nix/keyfob.nix", "nix/keyfob.nix", []string{"linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"}},
	} {
		if i := slices.IndexFunc(m.needs, func(n string) bool { return archives[n] == "" }); i >= 0 {
			fmt.Fprintf(os.Stderr, "packaging: no %s: the archive of %s was not built\n", m.file, m.needs[i])
			continue
		}
		if err := r.fill(m, archives); err != nil {
			return fmt.Errorf("%s: %w", m.file, err)
		}
	}
	return nil
}

func (r *release) fill(m manifest, archives map[string]string) error {
	sum := func(name string) (string, error) {
		b, err := os.ReadFile(filepath.Join(r.out, archives[name]))
		return digest(b), err
	}
	t, err := template.New(filepath.Base(m.template)).Delims("<<", ">>").Option("missingkey=error").Funcs(template.FuncMap{
		"url": func(name string) string { return r.conf["DOWNLOADS"] + "/v" + r.version + "/" + archives[name] },
		"dir": func(name string) string {
			return strings.TrimSuffix(strings.TrimSuffix(archives[name], ".zip"), ".tar.gz")
		},
		"sha256": sum,
		"SHA256": func(name string) (string, error) { s, err := sum(name); return strings.ToUpper(s), err },
		"sri": func(name string) (string, error) { // as Nix writes it
			s, err := sum(name)
			if err != nil {
				return "", err
			}
			b, err := hex.DecodeString(s)
			return "sha256-" + base64.StdEncoding.EncodeToString(b), err
		},
	}).ParseFiles(filepath.Join(r.source, "packaging", m.template+".tmpl"))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, filepath.Base(m.template)+".tmpl", map[string]string{
		"Version": r.version, "Commit": r.commit, "Date": r.date.Format("2006-01-02"), "Homepage": r.conf["HOMEPAGE"], "Licence": r.conf["LICENSE"],
		"Maintainer": r.conf["MAINTAINER"],
	}); err != nil {
		return err
	}
	return r.write(m.file, b.Bytes())
}

package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// module is one that is linked into a program.
type module struct {
	path, version string
	licence       string   // an SPDX id, "" where it is not recognised
	texts         []string // its licence and notice files
}

func (r *release) buildInfo(p platform, program string) (*buildinfo.BuildInfo, error) {
	info, err := buildinfo.ReadFile(r.program(p, program))
	if err != nil {
		return nil, fmt.Errorf("read what %s is made of: %w", program, err)
	}
	return info, nil
}

// modules are those of all programs and platforms, by path.
func (r *release) modules() ([]module, error) {
	versions := map[string]string{}
	for _, p := range r.platforms {
		for _, program := range programs {
			info, err := r.buildInfo(p, program)
			if err != nil {
				return nil, err
			}
			for _, d := range info.Deps {
				if d.Replace != nil {
					d = d.Replace
				}
				versions[d.Path] = d.Version
			}
		}
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var all []module
	for path, version := range versions {
		m := module{path: path, version: version}
		if err := m.readLicence(strings.TrimSpace(string(cache))); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	return all, nil
}

// readLicence reads a module's licence files out of the module cache.
func (m *module) readLicence(cache string) error {
	// A capital letter is an exclamation mark and the small one there
	// (https://go.dev/ref/mod#module-cache).
	var escaped strings.Builder
	for _, c := range m.path + "@" + m.version {
		if 'A' <= c && c <= 'Z' {
			escaped.WriteString("!" + strings.ToLower(string(c)))
		} else {
			escaped.WriteRune(c)
		}
	}
	dir := filepath.Join(cache, filepath.FromSlash(escaped.String()))
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("find the licence of %s: %w", m.path, err)
	}
	for _, f := range files {
		name := strings.ToUpper(f.Name())
		if f.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") && !strings.HasPrefix(name, "NOTICE") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n"))
		m.texts = append(m.texts, text)
		if m.licence == "" && !strings.HasPrefix(name, "NOTICE") {
			m.licence = licenceOf(text)
		}
	}
	if len(m.texts) == 0 {
		return fmt.Errorf("find a licence in %s %s: a release can't hold what nobody permits", m.path, m.version)
	}
	return nil
}

// licenceOf recognises the usual licences by a phrase that each of them has.
func licenceOf(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, l := range []struct{ id, phrase string }{
		{"Apache-2.0", "Apache License Version 2.0"},
		{"Apache-2.0", "Licensed under the Apache License, Version 2.0"},
		{"MPL-2.0", "Mozilla Public License Version 2.0"},
		{"BSD-3-Clause", "may be used to endorse or promote products"},
		{"BSD-2-Clause", "Redistribution and use in source and binary forms"},
		{"ISC", "Permission to use, copy, modify, and/or distribute this software"},
		{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose"},
		{"MIT", "Permission is hereby granted, free of charge"},
		{"Zlib", "This software is provided 'as-is', without any express or implied warranty"},
	} {
		if strings.Contains(text, l.phrase) {
			return l.id
		}
	}
	return ""
}

// notices writes THIRD-PARTY-NOTICES.txt, which most licences want beside a
// program.
func (r *release) notices() error {
	modules, err := r.modules()
	if err != nil {
		return err
	}
	golang, err := goLicence()
	if err != nil {
		return fmt.Errorf("find Go's licence: %w", err)
	}
	var b strings.Builder
	b.WriteString("keyfob's programs hold the Go standard library and the modules below, under these licences.\n")
	write := func(title, text string) {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 78), title, text)
	}
	write("The Go standard library, "+runtime.Version(), golang)
	for _, m := range modules {
		write(m.path+" "+m.version, strings.Join(m.texts, "\n\n"))
	}
	return os.WriteFile(filepath.Join(r.stage, "THIRD-PARTY-NOTICES.txt"), []byte(b.String()), 0o644)
}

func goLicence() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	dir := strings.TrimSpace(string(root))
	b, err := os.ReadFile(filepath.Join(dir, "LICENSE"))
	if os.IsNotExist(err) { // Debian and Homebrew put it elsewhere
		b, err = os.ReadFile(filepath.Join(filepath.Dir(dir), "LICENSE"))
	}
	return strings.TrimSpace(string(b)), err
}

// billOfMaterials writes a CycloneDX document
// (https://cyclonedx.org/docs/1.5/json/): the programs with their checksums,
// and the modules in them.
func (r *release) billOfMaterials() error {
	modules, err := r.modules()
	if err != nil {
		return err
	}
	type object = map[string]any
	purl := func(path, version string) string {
		return "pkg:golang/" + strings.ReplaceAll(url.PathEscape(path), "%2F", "/") + "@" + url.PathEscape(version)
	}
	self := "pkg:golang/keyfob@" + url.PathEscape("v"+r.version)
	var components, dependencies []object
	var linked []string
	golang := strings.TrimPrefix(runtime.Version(), "go")
	std := purl("std", golang)
	components = append(components, object{"type": "library", "bom-ref": std, "name": "std", "version": golang, "purl": std,
		"licenses": []object{{"license": object{"id": "BSD-3-Clause"}}}})
	for _, m := range modules {
		ref := purl(m.path, m.version)
		c := object{"type": "library", "bom-ref": ref, "name": m.path, "version": m.version, "purl": ref}
		if m.licence != "" {
			c["licenses"] = []object{{"license": object{"id": m.licence}}}
		}
		components = append(components, c)
	}
	for _, p := range r.platforms {
		for _, program := range programs {
			info, err := r.buildInfo(p, program)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(r.program(p, program))
			if err != nil {
				return err
			}
			ref := fmt.Sprintf("keyfob/%s/%s", p, filepath.Base(r.program(p, program)))
			components = append(components, object{"type": "application", "bom-ref": ref, "name": filepath.Base(r.program(p, program)), "version": r.version,
				"hashes":     []object{{"alg": "SHA-256", "content": digest(b)}},
				"properties": []object{{"name": "keyfob:platform", "value": p.os + "/" + p.arch}}})
			linked = append(linked, ref)
			needs := []string{std}
			for _, d := range info.Deps {
				if d.Replace != nil {
					d = d.Replace
				}
				needs = append(needs, purl(d.Path, d.Version))
			}
			dependencies = append(dependencies, object{"ref": ref, "dependsOn": needs})
		}
	}
	dependencies = append(dependencies, object{"ref": self, "dependsOn": linked})
	serial := sha256.Sum256(fmt.Append(nil, r.version, r.commit, components))
	doc := object{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"serialNumber": uuid(serial),
		"metadata": object{"timestamp": r.date.Format(time.RFC3339),
			"component": object{"type": "application", "bom-ref": self, "name": "keyfob", "version": r.version, "purl": self}},
		"components": components, "dependencies": dependencies,
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return r.write("keyfob_"+r.version+"_sbom.cdx.json", append(b, '\n'))
}

// uuid is one of version 8 (RFC 9562), made of a hash, so that it is the same
// each time.
func uuid(sum [sha256.Size]byte) string {
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

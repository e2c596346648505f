// Command tools makes a release of what packaging/build.sh has built:
// archives, packages, container images, manifests for package managers, the
// list of materials and the checksums. The same input gives the same bytes.
//
// It is a module of its own, so that the product's go.mod stays small.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// release is what is made, and of what.
type release struct {
	source  string // the repository
	stage   string // what build.sh has built: bin/OS-ARCH/, man/, completions/, scripts/
	out     string // where everything goes
	version string // without a v
	commit  string
	date    time.Time // of the commit: the time of every file
	conf    map[string]string

	platforms []platform
}

// platform is one that the programs were built for.
type platform struct {
	os, arch string
	keychain bool // darwin: keyfob-keyring has cgo, and so the keychain
}

func (p platform) String() string { return p.os + "-" + p.arch }

// programs are those that are released. fakeaws is not.
var programs = []string{"keyfob", "keyfobd", "keyfob-keyring", "keyfob-signin"}

// program is the file of a program, as it was built.
func (r *release) program(p platform, name string) string {
	if p.os == "windows" {
		name += ".exe"
	}
	return filepath.Join(r.stage, "bin", p.String(), name)
}

// create opens a new file of the release.
func (r *release) create(name string) (*os.File, error) {
	path := filepath.Join(r.out, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// write makes a file of the release.
func (r *release) write(name string, content []byte) error {
	f, err := r.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "packaging: cannot "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	r := &release{}
	flags := flag.NewFlagSet("tools", flag.ExitOnError)
	flags.StringVar(&r.source, "source", "", "the repository")
	flags.StringVar(&r.stage, "stage", "", "what was built")
	flags.StringVar(&r.out, "out", "", "where the release goes: an empty directory")
	flags.StringVar(&r.version, "version", "", "the version, without a v")
	flags.StringVar(&r.commit, "commit", "", "the commit")
	epoch := flags.Int64("epoch", 0, "the commit's time, in seconds since 1970")
	conf := flags.String("conf", "", "packaging/release.conf")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if r.source == "" || r.stage == "" || r.out == "" || r.version == "" || *epoch <= 0 || *conf == "" {
		return errors.New("make a release: -source, -stage, -out, -version, -epoch and -conf are needed")
	}
	r.date = time.Unix(*epoch, 0).UTC()
	var err error
	if r.conf, err = readConf(*conf); err != nil {
		return fmt.Errorf("read %s: %w", *conf, err)
	}
	if err := r.findPlatforms(); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func(*release) error
	}{
		{"set the time of the scripts", (*release).setTimes},
		{"gather the licences of the modules", (*release).notices},
		{"pack the source", (*release).sourceArchive},
		{"pack the archives", (*release).archives},
		{"make the packages", (*release).packages},
		{"make the container images", (*release).images},
		{"write the manifests", (*release).manifests},
		{"write the list of materials", (*release).billOfMaterials},
		{"write the checksums", (*release).checksums},
	} {
		if err := step.do(r); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// findPlatforms sees what build.sh has built.
func (r *release) findPlatforms() error {
	dirs, err := os.ReadDir(filepath.Join(r.stage, "bin"))
	if err != nil {
		return fmt.Errorf("find the programs: %w", err)
	}
	for _, d := range dirs {
		goos, arch, ok := strings.Cut(d.Name(), "-")
		if !ok {
			continue
		}
		p := platform{os: goos, arch: arch}
		if goos == "darwin" {
			info, err := r.buildInfo(p, "keyfob-keyring")
			if err != nil {
				return err
			}
			for _, s := range info.Settings {
				p.keychain = p.keychain || s.Key == "CGO_ENABLED" && s.Value == "1"
			}
		}
		r.platforms = append(r.platforms, p)
	}
	if len(r.platforms) == 0 {
		return fmt.Errorf("find the programs: %s/bin is empty", r.stage)
	}
	return nil
}

// setTimes gives the packages' scripts the commit's time: apk packages keep
// that of the file.
func (r *release) setTimes() error {
	return filepath.WalkDir(filepath.Join(r.stage, "scripts"), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, r.date, r.date))
	})
}

// of returns the platforms of one system.
func (r *release) of(goos string) []platform {
	return slices.DeleteFunc(slices.Clone(r.platforms), func(p platform) bool { return p.os != goos })
}

// readConf reads lines NAME=value; # begins a comment.
func readConf(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	conf := map[string]string{}
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d is not NAME=value", i+1)
		}
		conf[name] = strings.Trim(value, `"`)
	}
	for _, name := range []string{"HOMEPAGE", "DOWNLOADS", "MAINTAINER", "LICENSE"} {
		if conf[name] == "" {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	return conf, nil
}

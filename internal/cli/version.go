package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"keyfob/internal/control"
)

// versionInfo is `keyfob version --json`.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"`     // of the commit, RFC 3339
	Modified bool   `json:"modified,omitempty"` // the source was not that of the commit alone
	Go       string `json:"go"`
	Platform string `json:"platform"`
	CGO      bool   `json:"cgo"` // keyfob itself is built with cgo
	// Keystores are the backends that this build can keep the master key in.
	Keystores []string `json:"keystores"`
	// Missing says of a backend of this platform why this build lacks it.
	Missing  map[string]string      `json:"missing,omitempty"`
	Protocol int                    `json:"protocol"`
	Daemon   *control.VersionResult `json:"daemon,omitempty"` // that runs
	// Differs is what to do where the daemon that runs is of another version.
	Differs string `json:"differs,omitempty"`
}

// printVersion is `keyfob version`. It starts no daemon.
func (a *app) printVersion(invocation) int {
	v := versionInfo{Version: a.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Protocol: control.Version}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.built(info.Settings)
	}
	v.Keystores, v.Missing = keystores(runtime.GOOS, keyringHasCgo)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client, unreachable := a.dial(ctx)
	if unreachable == nil {
		var d control.VersionResult
		if unreachable = client.Call(ctx, control.MethodVersion, control.Empty{}, &d, nil); unreachable == nil {
			v.Daemon = &d
			v.Differs = a.otherVersion(d)
		}
	}
	if a.opts.json {
		return a.printJSON(v)
	}
	text := oneLine(v.line()) + "\n"
	if a.opts.verbose {
		text = table(v.rows(a.socket))
	}
	code := a.print(text)
	switch {
	case unreachable != nil && !errors.Is(unreachable, control.ErrNotRunning):
		a.notice("the version of keyfobd is not known: " + unreachable.Error())
		a.advise(hintOf(unreachable))
	case v.Differs != "":
		a.notice("the keyfobd that runs is " + v.Daemon.Version)
		a.advise(v.Differs)
	}
	return code
}

// built takes over what the compiler has noted.
func (v *versionInfo) built(settings []debug.BuildSetting) {
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Date = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		case "CGO_ENABLED":
			v.CGO = s.Value == "1"
		}
	}
}

// line is the version for people: "keyfob 0.1.0 (af07860ab12c, 2026-11-22)".
func (v *versionInfo) line() string {
	var source []string
	if v.Commit != "" {
		source = append(source, v.Commit[:min(12, len(v.Commit))])
	}
	if v.Date != "" {
		day, _, _ := strings.Cut(v.Date, "T")
		source = append(source, day)
	}
	if v.Modified {
		source = append(source, "modified")
	}
	if len(source) == 0 {
		return "keyfob " + v.Version
	}
	return "keyfob " + v.Version + " (" + strings.Join(source, ", ") + ")"
}

// rows are everything, for --verbose.
func (v *versionInfo) rows(socket string) [][]string {
	rows := [][]string{{"keyfob", v.Version}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	commit := v.Commit
	if commit != "" && v.Modified {
		commit += ", modified"
	}
	add("commit", commit)
	add("date", v.Date)
	add("go", v.Go)
	add("platform", v.Platform)
	add("cgo", map[bool]string{true: "yes", false: "no"}[v.CGO])
	add("keystores", strings.Join(v.Keystores, ", "))
	add("no keychain", v.Missing["keychain"])
	add("protocol", fmt.Sprint(v.Protocol))
	daemon := "not running"
	if d := v.Daemon; d != nil {
		daemon = fmt.Sprintf("%s, pid %d, %s, on %s", d.Version, d.PID, d.Exe, socket)
	}
	add("keyfobd", daemon)
	return rows
}

// otherVersion is what to do where a daemon that runs is of another version
// than keyfob, "" where both are one.
func (a *app) otherVersion(d control.VersionResult) string {
	s, err := a.settings()
	switch {
	case d.Version == a.Version:
		return ""
	case err == nil && a.socket == s.SystemSocket:
		return "keyfob service restart --system"
	case d.OnDemand:
		return "keyfob stop" // the next command starts the new one
	}
	return "keyfob service restart"
}

// keystores are the backends for the master key on goos, and why others of
// that platform are missing. All are there in every build but the macOS
// Keychain, which is reached by cgo, and by keyfob-keyring alone.
func keystores(goos string, cgo func() (has, known bool)) (there []string, missing map[string]string) {
	switch goos {
	case "linux":
		there = []string{"secret-service", "kwallet", "keyctl", "pass"}
	case "windows":
		there = []string{"wincred"}
	case "darwin":
		there = []string{"keychain", "pass"}
		if has, known := cgo(); known && !has {
			there = []string{"pass"}
			missing = map[string]string{"keychain": "keyfob-keyring is built without cgo"}
		}
	}
	return append(there, "passphrase"), missing
}

// keyringHasCgo looks how keyfob-keyring was built, in its file: it is a
// program of its own, and on macOS another build than keyfob.
func keyringHasCgo() (has, known bool) {
	path, err := findBeside("keyfob-keyring")
	if err != nil {
		return false, false
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return false, false
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return false, false
	}
	return builtWithCgo(program)
}

// builtWithCgo reads CGO_ENABLED of what Go writes into a program: a mark of
// 16 bytes, the last of them flags, and from the 32nd on the version of Go and
// the settings, each behind its length. Package debug/buildinfo reads it too,
// and would make keyfob larger by five packages.
func builtWithCgo(program []byte) (has, known bool) {
	const mark, inline, at = "\xff Go buildinf:", 2, 32
	for {
		i := bytes.Index(program, []byte(mark))
		if i < 0 || i+at > len(program) {
			return false, false
		}
		info := program[i+at:]
		isInline := program[i+15]&inline != 0
		program = program[i+len(mark):]
		version, info, ok := lengthThen(info)
		if !ok || !isInline || !bytes.HasPrefix(version, []byte("go")) && !bytes.HasPrefix(version, []byte("devel")) {
			continue
		}
		settings, _, ok := lengthThen(info)
		if _, value, found := bytes.Cut(settings, []byte("\nbuild\tCGO_ENABLED=")); ok && found && len(value) > 0 {
			return value[0] == '1', true
		}
	}
}

// lengthThen reads a text behind its length, and returns what follows it.
func lengthThen(b []byte) (text, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	return b[used : used+int(n)], b[used+int(n):], true
}

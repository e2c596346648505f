package service

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// searchPath is what of a person's PATH is good for a daemon: absolute
// directories, each once. "" where nothing is left.
func searchPath(path string) string {
	var dirs []string
	for _, d := range filepath.SplitList(path) {
		if filepath.IsAbs(d) && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// richer is the PATH to install over the one of an earlier install: a poorer
// one, as cron or a script has it, does not replace what the person had.
func richer(before, now string) string {
	old := filepath.SplitList(before)
	for _, d := range filepath.SplitList(now) {
		if !slices.Contains(old, d) {
			return now
		}
	}
	if before == "" {
		return now
	}
	return before
}

var (
	unitPathLine  = regexp.MustCompile(`(?m)^Environment="?PATH=([^"\n]*)"?$`)
	plistPathLine = regexp.MustCompile(`<key>PATH</key>\s*<string>([^<]*)</string>`)
)

// installedPath is the PATH in a file of ours that nobody edited, "" for none.
func installedPath(file string, line *regexp.Regexp) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	if ours, untouched := madeBy(string(b)); !ours || !untouched {
		return ""
	}
	m := line.FindStringSubmatch(string(b))
	if m == nil {
		return ""
	}
	return strings.ReplaceAll(m[1], "%%", "%")
}

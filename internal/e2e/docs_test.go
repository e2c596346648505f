//go:build !windows

package e2e

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// block is a fenced block of a page of the documentation.
type block struct {
	line int
	info string // "sh", "sh no-test", "ini"
	text string
}

func blocks(t *testing.T, file string) []block {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	var open *block
	indent := ""
	for i, l := range strings.Split(string(b), "\n") {
		body := strings.TrimLeft(l, " ")
		switch {
		case open == nil && strings.HasPrefix(body, "```"):
			indent = l[:len(l)-len(body)]
			open = &block{line: i + 1, info: strings.TrimPrefix(body, "```")}
		case open != nil && strings.HasPrefix(body, "```"):
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(l, indent) + "\n"
		}
	}
	if open != nil {
		t.Errorf("%s:%d: a block has no end", file, open.line)
	}
	return all
}

func pages(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(all, "../../README.md", "../../CONTRIBUTING.md")
}

// answers is what a person would type for the commands of the pages: they
// read standard input where it is no terminal.
const answers = `
keyfob() {
  case "$1" in
  add) printf '{"AccessKeyId":"%s","SecretAccessKey":"%s"}' "$TEST_KEY" "$TEST_SECRET" | command keyfob "$@" ;;
  login) echo "$TEST_CODE" | command keyfob "$@" ;;
  *) command keyfob "$@" </dev/null ;;
  esac
}
`

// The commands of the README and of the guides are run, page by page, each
// page on a machine of its own whose base user has its keys in the vault.
// What can't be run says so: "sh no-test".
func TestCommandsOfTheDocumentation(t *testing.T) {
	ran := 0
	for _, page := range pages(t) {
		var script strings.Builder
		for _, b := range blocks(t, page) {
			if b.info == "sh" {
				fmt.Fprintf(&script, "\n# %s:%d\n%s", filepath.Base(page), b.line, b.text)
				ran++
			}
		}
		if script.Len() == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text := script.String()
			if strings.Contains(text, "aws ") {
				if _, err := exec.LookPath("aws"); err != nil {
					t.Skip("the AWS CLI is not installed")
				}
			}
			if !strings.Contains(text, "keyfob add base") {
				w.addKeys("base")
			}
			w.env["TEST_KEY"], w.env["TEST_SECRET"], w.env["TEST_CODE"] = w.keyID, w.secret, "000000"
			w.env["AWS_REGION"] = "eu-west-1"
			cmd := w.command("bash", "-e", "-x", "-c", answers+text)
			if r := w.finish(cmd); r.code != 0 {
				t.Errorf("the page's commands end with %d\n%s\n%s", r.code, r.out, r.err)
			}
		})
	}
	if ran < 7 {
		t.Errorf("only %d blocks are run", ran)
	}
}

// Each message of the troubleshooting page is one that the programs print.
func TestMessagesOfTheDocumentation(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"../../daemon", "../../imds", "../../keystore", "../../profiles", "../../internal"} {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "fakeaws") {
				return err
			}
			b, err := os.ReadFile(path)
			code.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	all := code.String()
	headings := regexp.MustCompile("(?m)^### (`.*`)$")
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	found := headings.FindAllStringSubmatch(string(page), -1)
	for _, h := range found {
		for _, part := range strings.FieldsFunc(h[1], func(r rune) bool { return r == '…' || r == '`' }) {
			if part = strings.TrimRight(strings.TrimSpace(part), ":"); len(part) > 2 && !strings.Contains(all, part) {
				t.Errorf("no program says %q", part)
			}
		}
	}
	if len(found) < 20 {
		t.Errorf("only %d messages are listed", len(found))
	}
}

// Links between pages lead somewhere.
func TestLinksOfTheDocumentation(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, page := range append(pages(t), "../../CHANGELOG.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(string(b), -1) {
			target := page
			if l[1] != "" {
				target = filepath.Join(filepath.Dir(page), l[1])
			}
			st, err := os.Stat(target)
			if err != nil {
				t.Errorf("%s: %s leads nowhere", page, l[0])
				continue
			}
			if l[2] == "" || st.IsDir() {
				continue
			}
			to, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			ok := false
			for _, h := range heading.FindAllStringSubmatch(string(to), -1) {
				ok = ok || "#"+anchor(h[1]) == l[2]
			}
			if !ok {
				t.Errorf("%s: %s has no such heading", page, l[0])
			}
		}
	}
}

// The pictures are those that scripts/pictures.sh makes: every page's are
// there, every one there is in a page, each is small, and what can be read in
// them are commands that exist, and nothing of the machine that made them.
func TestPicturesOfTheDocumentation(t *testing.T) {
	commands := map[string]bool{}
	table, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^## ([a-z-]+)").FindAllStringSubmatch(string(table), -1) {
		commands[m[1]] = true
	}
	shown := map[string]bool{}
	link := regexp.MustCompile(`!\[([^\]]*)\]\(([^)]*)\)`)
	for _, page := range pages(t) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(string(b), -1) {
			if l[1] == "" {
				t.Errorf("%s: %s has no words for who cannot see it", page, l[2])
			}
			shown[filepath.Join(filepath.Dir(page), l[2])] = true
		}
	}
	there, err := filepath.Glob("../../docs/pictures/*")
	if err != nil || len(there) == 0 {
		t.Fatalf("there are no pictures: %v", err)
	}
	for file := range shown {
		if !slices.Contains(there, file) {
			t.Errorf("%s is in a page and not there", file)
		}
	}
	prose := map[string]bool{"and": true, "keeps": true} // "keyfob and keyfobd are both …"
	word := regexp.MustCompile(`(?:^|[ →])keyfob ([a-z][a-z-]*)`)
	foreign := regexp.MustCompile(`/tmp/|/root\b|127\.0\.0\.1:(?:\d{5}|[0-8]\d{3})|A[KS]IA[A-Z0-9]{12}|@(?:vm|localhost)\b|[0-9]{2,}µs`)
	for _, file := range there {
		if !shown[file] {
			t.Errorf("%s is in no page", file)
		}
		lines, size := readable(t, file)
		if size > 60_000 {
			t.Errorf("%s has %d bytes", file, size)
		}
		if len(lines) < 5 || !strings.HasPrefix(lines[0], "$ keyfob") {
			t.Errorf("%s does not begin with its command: %q", file, lines)
		}
		for _, l := range lines {
			for _, m := range word.FindAllStringSubmatch(l, -1) {
				if !commands[m[1]] && !prose[m[1]] {
					t.Errorf("%s: %q names no command: %q", file, m[1], l)
				}
			}
			if m := foreign.FindString(l); m != "" {
				t.Errorf("%s: %q is of the machine that made it: %q", file, m, l)
			}
		}
	}
}

// readable are the lines of text in an SVG, from the top, and its size.
func readable(t *testing.T, file string) (lines []string, size int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := ""
	for d := xml.NewDecoder(strings.NewReader(string(b))); ; {
		token, err := d.Token()
		if err == io.EOF {
			return lines, len(b)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "text" {
			continue
		}
		y := ""
		for _, a := range start.Attr {
			if a.Name.Local == "y" {
				y = a.Value
			}
		}
		var words string
		if err := d.DecodeElement(&words, &start); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if y != at {
			lines, at = append(lines, words), y
		} else {
			lines[len(lines)-1] += " " + words
		}
	}
}

// anchor is a heading's name in a link, as GitHub makes it.
func anchor(heading string) string {
	keep := strings.Map(func(r rune) rune {
		switch {
		case r == ' ', r == '-':
			return '-'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r > 127, r == '_':
			return r
		}
		return -1
	}, strings.ToLower(heading))
	return keep
}

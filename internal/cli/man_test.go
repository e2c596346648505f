//go:build !windows

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The manual pages are made of the command table and of docs/settings.md, in
// the language of man(7).

// page is one manual page under way.
type page struct{ strings.Builder }

func newPage(name, section, about string) *page {
	p := &page{}
	p.macro(`.\" Made by go test ./internal/cli -run TestDocs -update.`)
	p.macro(fmt.Sprintf(`.TH %s %s "" keyfob "%s"`, strings.ToUpper(name), section, map[string]string{"1": "User Commands", "5": "File Formats", "8": "System Administration"}[section]))
	p.head("NAME")
	p.macro(name + ` \- ` + roff(about))
	return p
}

func (p *page) macro(line string) { p.WriteString(line + "\n") }

func (p *page) head(title string) { p.macro(`.SH "` + title + `"`) }

// say writes a paragraph.
func (p *page) say(text string) {
	p.macro(".PP")
	p.macro(text)
}

// item is a term and what it means.
func (p *page) item(term, meaning string) {
	p.macro(".TP")
	p.macro(term)
	p.macro(meaning)
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`,
	"…", "...", "→", `\(->`, "–", `\(en`, "✓", "yes")

// roff makes text of what it is, and no macro of a line that begins like one.
func roff(text string) string {
	text = roffEscapes.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func (p *page) flags(flags []shownFlag) {
	for _, f := range flags {
		term := `\fB` + roff(f.name) + `\fR`
		if f.value != "" {
			term += ` \fI` + roff(f.value) + `\fR`
		}
		p.item(term, roff(sentence(f.text)))
	}
}

func (p *page) exitStatus() {
	p.head("EXIT STATUS")
	for _, c := range exitCodes {
		p.item(`\fB`+c[0]+`\fR`, roff(sentence(c[1])))
	}
}

func (p *page) seeAlso(pages ...string) {
	p.head("SEE ALSO")
	for i, name := range pages {
		base, section, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
		line := `.BR ` + roff(base) + ` (` + section + `)`
		if i < len(pages)-1 {
			line += ","
		}
		p.macro(line)
	}
}

// manPages are all of them, by file name.
func manPages(t *testing.T) map[string]string {
	pages := map[string]string{"keyfob.1": mainPage(), "keyfobd.8": daemonPage(), "keyfob.5": settingsPage(t)}
	for _, c := range shownCommands() {
		pages["keyfob-"+strings.ReplaceAll(c.name, " ", "-")+".1"] = commandPage(c)
	}
	for name, text := range pages {
		pages[name] = squeezed(text)
	}
	return pages
}

func mainPage() string {
	p := newPage("keyfob", "1", "AWS credentials that stay fresh, for the programs of this machine")
	p.head("SYNOPSIS")
	p.macro(`.B keyfob`)
	p.macro(`[\fICOMMAND\fR] [\fIP\fR] [\fIflags\fR]`)
	p.head("DESCRIPTION")
	p.say(roff("keyfob hands temporary AWS credentials to local programs and keeps them fresh. Long-lived keys lie in a vault that the keyring of the system opens. A daemon, keyfobd, does the work; keyfob asks it, and starts it when none runs."))
	p.say(roff("keyfob alone says what is set up and what to do next."))
	p.say(roff("P is a profile. Without it AWS_PROFILE counts, then the profile of config.toml, then default. Standard output carries the result alone; messages go to standard error."))
	p.head("COMMANDS")
	for _, c := range shownCommands() {
		p.item(`\fB`+roff(c.name)+`\fR `+roff(c.args), roff(sentence(c.short))+"\nSee "+roff("keyfob-"+strings.ReplaceAll(c.name, " ", "-")+"(1)."))
	}
	p.head("OPTIONS")
	p.flags(flagsOf(nil))
	p.exitStatus()
	p.head("ENVIRONMENT")
	p.item(`\fBAWS_PROFILE\fR, \fBAWS_DEFAULT_PROFILE\fR`, roff("The profile where none is named."))
	p.item(`\fBKEYFOB_*\fR`, roff("Settings: see keyfob(5)."))
	p.item(`\fBNO_COLOR\fR`, roff("No colour, whatever its value. Pipes and files never get any."))
	p.item(`\fBBROWSER\fR`, roff("The command that opens a browser for sign-ins; %s or a last argument is the address."))
	p.head("FILES")
	p.item(`\fI~/.config/keyfob/config.toml\fR`, roff("Settings: see keyfob(5)."))
	p.item(`\fI~/.config/keyfob/profiles\fR`, roff("keyfob's own profiles, which win over the AWS files."))
	p.item(`\fI~/.aws/config\fR, \fI~/.aws/credentials\fR`, roff("The profiles of the AWS SDKs."))
	p.item(`\fI~/.local/share/keyfob\fR`, roff("The vault, the audit log, and the log of a daemon that was started on demand."))
	p.seeAlso("keyfob(5)", "keyfobd(8)")
	return p.String()
}

func commandPage(c *command) string {
	name := "keyfob-" + strings.ReplaceAll(c.name, " ", "-")
	p := newPage(name, "1", c.short)
	p.head("SYNOPSIS")
	p.macro(`.B keyfob ` + roff(c.name))
	p.macro(strings.TrimSpace(roff(c.args) + ` [\fIflags\fR]`))
	p.head("DESCRIPTION")
	p.say(roff(sentence(c.short)))
	if c.long != "" {
		p.say(roff(strings.ReplaceAll(c.long, "\n", " ")))
	}
	if flags := flagsOf(c); len(flags) > 0 {
		p.head("OPTIONS")
		p.flags(flags)
		p.say("The general options are in\n.BR keyfob (1).")
	}
	p.exitStatus()
	also := []string{"keyfob(1)"}
	first, _, _ := strings.Cut(c.name, " ")
	for _, other := range shownCommands() {
		if of, _, _ := strings.Cut(other.name, " "); of == first && other.name != c.name {
			also = append(also, "keyfob-"+strings.ReplaceAll(other.name, " ", "-")+"(1)")
		}
	}
	p.seeAlso(also...)
	return p.String()
}

func daemonPage() string {
	p := newPage("keyfobd", "8", "the keyfob daemon: keeps AWS credentials fresh and serves them")
	p.head("SYNOPSIS")
	p.macro(".B keyfobd")
	p.macro(`\fBrun\fR | \fBvalidate\fR | \fBmake-certificate\fR | \fBservice\fR \fI...\fR [\fIflags\fR]`)
	p.head("DESCRIPTION")
	p.say(roff("keyfobd resolves profiles, calls AWS, opens the vault and serves endpoints: a control socket for keyfob(1), and, where they are set up, the EC2 instance metadata interface and the container credentials interface. keyfob starts it when none runs; it then ends by itself after a time without callers."))
	p.item(`\fBrun\fR`, roff("Run in the foreground until a signal ends it. SIGHUP has it read its files again."))
	p.item(`\fBvalidate\fR`, roff("Check the settings as run would read them, and say what is wrong with file and line."))
	p.item(`\fBmake-certificate\fR \fIDIRECTORY\fR \fINAME\fR...`, roff("Make the certificate and key of a container endpoint that speaks TLS, and the authority for its clients to trust: cert.pem, key.pem and ca.pem. --days says how long they are valid; --force replaces those that are there."))
	p.item(`\fBservice\fR`, roff("Install, remove and control it as a service: the person's, or with --system that of the machine."))
	p.say("Its settings, with the flags and variables that stand for them, are in\n.BR keyfob (5).")
	p.head("SIGNALS")
	p.item(`\fBSIGTERM\fR, \fBSIGINT\fR`, roff("End: requests under way are answered first."))
	p.item(`\fBSIGHUP\fR`, roff("Read config.toml and the AWS files again. What cannot be used leaves what was read before in force."))
	p.head("EXIT STATUS")
	p.item(`\fB0\fR`, "It was told to end.")
	p.item(`\fB1\fR`, roff("It could not start: the settings are wrong, an address is taken, or another keyfobd serves the socket."))
	p.item(`\fB2\fR`, "Wrong usage.")
	p.seeAlso("keyfob(1)", "keyfob(5)")
	return p.String()
}

// settingsPage is docs/settings.md as a manual page: headings, paragraphs,
// code, and tables as lists.
func settingsPage(t *testing.T) string {
	b, err := os.ReadFile(filepath.Join(docsDir, "settings.md"))
	if err != nil {
		t.Fatal(err)
	}
	p := newPage("keyfob", "5", "settings of keyfob and keyfobd: config.toml, flags and variables")
	p.head("DESCRIPTION")
	code := false
	var columns []string
	for _, line := range strings.Split(string(b), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			if code = !code; code {
				p.macro(".PP\n.RS 4\n.nf")
			} else {
				p.macro(".fi\n.RE")
			}
		case code:
			p.macro(roff(line))
		case strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "## "):
			p.head(roff(strings.ToUpper(line[3:])))
		case strings.HasPrefix(line, "### "):
			p.macro(`.SS "` + roff(line[4:]) + `"`)
		case strings.HasPrefix(line, "|---"):
		case strings.HasPrefix(line, "|"):
			row := tableRow(line)
			if columns == nil {
				columns = row
				continue
			}
			p.tableItem(row)
			continue
		case line == "":
			p.macro(".PP")
		default:
			p.macro(inline(strings.TrimPrefix(line, "- ")))
		}
		columns = nil
		if strings.HasPrefix(line, "|---") {
			columns = []string{}
		}
	}
	p.seeAlso("keyfob(1)", "keyfobd(8)")
	return p.String()
}

// squeezed takes out paragraphs in which nothing stands.
func squeezed(text string) string {
	lines := strings.Split(text, "\n")
	var kept []string
	for i, l := range lines {
		if l == ".PP" && i+1 < len(lines) && (lines[i+1] == ".PP" || strings.HasPrefix(lines[i+1], ".SH") || strings.HasPrefix(lines[i+1], ".SS") || strings.HasPrefix(lines[i+1], ".TP")) {
			continue
		}
		if l == ".PP" && len(kept) > 0 && (strings.HasPrefix(kept[len(kept)-1], ".SH") || strings.HasPrefix(kept[len(kept)-1], ".SS")) {
			continue
		}
		kept = append(kept, l)
	}
	return strings.Join(kept, "\n")
}

func tableRow(line string) []string {
	line = strings.ReplaceAll(line, `\|`, "\x00")
	cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
	for i := range cells {
		cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|")
	}
	return cells
}

// tableItem shows a row: its names together, the last column as what they
// mean.
func (p *page) tableItem(row []string) {
	var names []string
	for _, c := range row[:len(row)-1] {
		if c != "" {
			names = append(names, inline(c))
		}
	}
	meaning := inline(row[len(row)-1])
	if meaning == "" {
		meaning = "No default."
	}
	p.item(strings.Join(names, ", "), meaning)
}

// inline makes bold what stands between backquotes.
func inline(text string) string {
	parts := strings.Split(text, "`")
	var b strings.Builder
	for i, part := range parts {
		if i%2 == 1 {
			b.WriteString(`\fB` + strings.TrimPrefix(roff(part), `\&`) + `\fR`)
		} else if part != "" {
			escaped := roff(part)
			if i > 0 {
				escaped = strings.TrimPrefix(escaped, `\&`)
			}
			b.WriteString(escaped)
		}
	}
	return b.String()
}

func TestDocsOfManual(t *testing.T) {
	pages := manPages(t)
	files := map[string]bool{}
	for name, text := range pages {
		files[name] = true
		current(t, "man/"+name, text)
	}
	noOthers(t, "man", files)
}

// TestManualIsValid has the formatters that are here look at each page.
func TestManualIsValid(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, text := range manPages(t) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	if _, err := exec.LookPath("man"); err == nil {
		for _, f := range files {
			cmd := exec.Command("man", "--warnings=all", "-E", "UTF-8", "-l", "-Tutf8", "-Z", f)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=100")
			var said strings.Builder
			cmd.Stderr = &said
			if err := cmd.Run(); err != nil || said.Len() > 0 {
				t.Errorf("man %s: %v\n%s", filepath.Base(f), err, said.String())
			}
		}
	}
	if _, err := exec.LookPath("mandoc"); err == nil {
		out, _ := exec.Command("mandoc", append([]string{"-Tlint", "-Wwarning"}, files...)...).CombinedOutput()
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			if line != "" && !strings.Contains(line, "missing date") { // a build has none of its own
				t.Error(line)
			}
		}
	}
}

//go:build !windows

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The scripts are tried in the shells themselves. Each case is a line as it
// is typed, and what the shell offers.

type completionCase struct {
	line string
	want []string // all of them, sorted; nil for "the shell's own: files"
}

var completionCases = []completionCase{
	{"keyfob sta", []string{"status"}},
	{"keyfob grant ", []string{"add", "list", "remove"}},
	{"keyfob grant remove ", []string{"g1"}},
	{"keyfob answer ", []string{"i1", "i2"}},
	{"keyfob login p", []string{"prod"}},
	{"keyfob login --profile p", []string{"prod"}},
	{"keyfob env prod --shell fi", []string{"fish"}},
	{"keyfob exec prod --reg", []string{"--region"}},
	{"keyfob completion z", []string{"zsh"}},
	{"keyfob --keystore=pass", []string{"--keystore=pass", "--keystore=passphrase"}},
	{"keyfob exec with:c", []string{"with:colon"}},
}

func completionHome(t *testing.T) *home {
	h := newHome(t)
	if out, err := h.command("status").CombinedOutput(); err != nil { // a daemon for the ids
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(h.dir, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, ".aws", "config"), []byte("[profile prod]\n[profile with:colon]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "a-file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// inShell runs program and returns the lines that it prints, sorted.
func (h *home) inShell(program string, args ...string) []string {
	h.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		h.t.Skip("no " + program + " here")
	}
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Dir = append(slices.Clone(h.env), "TERM=dumb", "LC_ALL=C.UTF-8"), h.dir
	for _, v := range []string{"LD_LIBRARY_PATH", "FPATH"} { // of a shell that is not installed in the usual place
		if value := os.Getenv(v); value != "" {
			cmd.Env = append(cmd.Env, v+"="+value)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", program, err, out)
	}
	var lines []string
	for _, l := range strings.Split(string(out), "\n") {
		if l = strings.TrimRight(l, " \r"); l != "" {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestBashCompletes(t *testing.T) {
	h := completionHome(t)
	for _, c := range completionCases {
		// As readline does: the line, and the words as COMP_WORDBREAKS cuts
		// them, of which our script uses the line.
		got := h.inShell("bash", "--norc", "-c", `eval "$(keyfob completion bash)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
compopt() { :; }
_keyfob
printf '%s\n' "${COMPREPLY[@]}"`, "bash", c.line)
		want := slices.Clone(c.want)
		for i := range want { // readline keeps what stands before : and =
			if last := c.line[strings.LastIndexByte(c.line, ' ')+1:]; strings.ContainsAny(last, ":=") {
				want[i] = want[i][strings.LastIndexAny(last, ":=")+1:]
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: bash offers %q, want %q", c.line, got, want)
		}
	}
	got := h.inShell("bash", "--norc", "-c", `eval "$(keyfob completion bash)"
COMP_LINE="keyfob exec prod -- bas" COMP_POINT=23; compopt() { :; }; _keyfob; printf '%s\n' "${COMPREPLY[@]}"`)
	if !slices.Contains(got, "bash") {
		t.Errorf("behind -- bash offers %q", got)
	}
}

func TestFishCompletes(t *testing.T) {
	h := completionHome(t)
	for _, c := range completionCases {
		var got []string
		for _, l := range h.inShell("fish", "--no-config", "-c", "keyfob completion fish | source; complete -C $argv[1]", "--", c.line) {
			word, _, _ := strings.Cut(l, "\t")
			got = append(got, word)
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: fish offers %q, want %q", c.line, got, c.want)
		}
	}
	got := h.inShell("fish", "--no-config", "-c", "keyfob completion fish | source; complete -C 'keyfob sta'")
	if len(got) != 1 || got[0] != "status\tshow what the daemon does" {
		t.Errorf("fish describes %q", got)
	}
	if got := h.inShell("fish", "--no-config", "-c", "keyfob completion fish | source; complete -C 'keyfob exec prod -- bas'"); !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "bash") }) {
		t.Errorf("behind -- fish offers %q", got)
	}
}

// zshHarness types the line in a real zsh on a terminal of its own, and has
// it list what it would offer.
const zshHarness = `
zmodload zsh/zpty || exit 9
zpty z zsh -f -i
zpty -w z 'PS1= PROMPT2= ; autoload -Uz compinit && compinit -u -D; source <(keyfob completion zsh); LISTMAX=0; stty -echo;'
zpty -w z 'compadd() { local -a o; local x; for x in "$@"; do [[ $x == -[OAD] ]] && { builtin compadd "$@"; return }; done; builtin compadd -O o "$@"; print -rl -- GOT:$^o; builtin compadd "$@" }'
zpty -w z 'zle -C list list-choices _main_complete; bindkey "^X" list; print READY-$((1+1))'
while zpty -r z line; do [[ $line == *READY-2* ]] && break; done
zpty -n -w z "$1"$'\x18'
zpty -n -w z $'\x15'
zpty -w z 'print END-$((1+1))'
while zpty -r z line; do
    [[ $line == *END-2* ]] && break
    [[ $line == *GOT:* ]] && print -r -- ${${line##*GOT:}%%$'\r'*}
done
zpty -d z
`

func TestZshCompletes(t *testing.T) {
	h := completionHome(t)
	for _, c := range completionCases {
		got := slices.Compact(h.inShell("zsh", "-f", "-c", zshHarness, "zsh", c.line))
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: zsh offers %q, want %q", c.line, got, c.want)
		}
	}
}

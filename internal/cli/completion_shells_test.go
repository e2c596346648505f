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
	{"keyfob configure x --kind ro", []string{"role", "roles-anywhere"}},
	{"keyfob configure x --kind=s", []string{"--kind=saml", "--kind=sso"}},
	{"keyfob configure x --credential-source E", []string{"Ec2InstanceMetadata", "EcsContainer", "Environment"}},
	{"keyfob configure x --source-profile pr", []string{"prod"}},
	{"keyfob import --from c", []string{"credentials", "csv"}},
	{"keyfob import --from aws-vault --backend k", []string{"keychain", "keyctl", "kwallet"}},
	{"keyfob audit --event ref", []string{"refusal"}},
	{"keyfob list --interactive ", []string{"always", "auto", "never"}},
	{"keyfob list --log-level w", []string{"warn"}},
	{"keyfob list --log-format j", []string{"json"}},
	{"keyfob service un", []string{"uninstall"}},
	{"keyfob service install --sy", []string{"--system"}},
	{"keyfob link-local dis", []string{"disable"}},
	{"keyfob list --no-s", []string{"--no-start"}},
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
	// A name that a shell would act on is inserted as a word that says it.
	if err := os.MkdirAll(filepath.Join(h.data, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.data, "vault", "key+%24%28touch%20ran%29%27%3b.rec"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inserted := h.inShell("bash", "--norc", "-c", `eval "$(keyfob completion bash)"
COMP_LINE='keyfob exec $' COMP_POINT=13; compopt() { :; }; _keyfob; eval "printf '%s\n' ${COMPREPLY[0]}"`)
	if _, err := os.Stat(filepath.Join(h.dir, "ran")); err == nil || !slices.Equal(inserted, []string{"$(touch ran)';"}) {
		t.Errorf("bash makes %q of a hostile name, and runs it: %v", inserted, err == nil)
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

// zshHarness calls the function as zsh's completion does, with the words of
// the line up to the cursor, and says what it hands to compadd.
const zshHarness = `
compdef() { :; }
_files() { print FILES; }
_normal() { print NORMAL $CURRENT $words; }
compadd() {
    while [[ $1 == -* ]]; do
        case $1 in
        -d) told=(${(P)2}); shift 2 ;;
        --) shift; break ;;
        *) shift ;;
        esac
    done
    print -rl -- "$@"
    print -rl -- "$told[@]" >&2
}
source <(keyfob completion zsh)
words=("${(@s: :)1}")
CURRENT=$#words
_keyfob 2>$2`

func TestZshCompletes(t *testing.T) {
	h := completionHome(t)
	told := filepath.Join(h.dir, "told")
	for _, c := range completionCases {
		if got := h.inShell("zsh", "-f", "-c", zshHarness, "zsh", c.line, told); !slices.Equal(got, c.want) {
			t.Errorf("%q: zsh offers %q, want %q", c.line, got, c.want)
		}
	}
	h.inShell("zsh", "-f", "-c", zshHarness, "zsh", "keyfob sta", told)
	if b, _ := os.ReadFile(told); string(b) != "status  -- show what the daemon does\n" {
		t.Errorf("zsh describes %q", b)
	}
	for line, want := range map[string]string{"keyfob grant add x y": "FILES", "keyfob exec prod -- make al": "NORMAL 2 make al"} {
		if got := h.inShell("zsh", "-f", "-c", zshHarness, "zsh", line, told); !slices.Equal(got, []string{want}) {
			t.Errorf("%q: zsh does %q, want %q", line, got, want)
		}
	}
}

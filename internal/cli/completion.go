package cli

import (
	"context"
	"flag"
	"fmt"
	"sort"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/settings"
	"keyfob/profiles"
)

// completion is `keyfob completion SHELL`: a script that has the shell ask
// `keyfob __complete`, so that commands, flags and profiles are those of the
// keyfob that runs.
func (a *app) completion(in invocation) int {
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion, "powershell": powershellCompletion}
	script, ok := scripts[in.args[0]]
	if !ok {
		hint := "bash, zsh, fish or powershell"
		if near := nearest(in.args[0], []string{"bash", "zsh", "fish", "powershell"}); near != "" {
			hint = "keyfob completion " + near
		}
		return a.fail("print a completion script", usage(fmt.Sprintf("cannot complete for the shell %q", in.args[0]), hint))
	}
	return a.print(script)
}

const bashCompletion = `# bash completion for keyfob: eval "$(keyfob completion bash)"
_keyfob() {
    local i line
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            compopt -o default
            COMPREPLY=($(compgen -c -- "${COMP_WORDS[COMP_CWORD]}"))
            return
        fi
    done
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(keyfob __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then
        compopt -o default
    fi
}
complete -F _keyfob keyfob
`

const zshCompletion = `#compdef keyfob
# zsh completion for keyfob: source <(keyfob completion zsh)
_keyfob() {
    local -i split=${words[(i)--]}
    if (( split < CURRENT )); then
        shift $split words
        (( CURRENT -= split ))
        _normal
        return
    fi
    local -a found
    found=(${(f)"$(keyfob __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ${#found} )); then
        compadd -- $found
    else
        _files
    fi
}
compdef _keyfob keyfob
`

const fishCompletion = `# fish completion for keyfob: keyfob completion fish | source
function __keyfob_complete
    set -l words (commandline -opc)
    set -e words[1]
    keyfob __complete $words (commandline -ct) 2>/dev/null
end
complete -c keyfob -f -a '(__keyfob_complete)'
`

const powershellCompletion = `# PowerShell completion for keyfob: keyfob completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName keyfob -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
    if ($wordToComplete -eq '') { $words += '""' }
    keyfob __complete @words 2>$null | ForEach-Object {
        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
    }
}
`

// complete is the hidden command that the scripts run: the words typed so
// far, the last of which is being completed. It prints one candidate a line
// and never fails.
func (a *app) complete(in invocation) int {
	words := in.rest
	if len(words) == 0 {
		words = []string{""}
	}
	typed := words[len(words)-1]
	if typed == `""` {
		typed = ""
	}
	var b strings.Builder
	for _, c := range a.candidates(words[:len(words)-1], typed) {
		if strings.HasPrefix(c, typed) && c == oneLine(c) {
			b.WriteString(c + "\n")
		}
	}
	return a.print(b.String())
}

func (a *app) candidates(before []string, typed string) []string {
	all := commands()
	var cmd *command
	var word string
	given, wants := 0, "" // arguments so far; the flag whose value is typed
	fs := a.flagSet(nil)
	for _, w := range before {
		switch {
		case wants != "":
			_ = fs.Set(wants, w)
			wants = ""
		case strings.HasPrefix(w, "--"):
			name, value, joined := strings.Cut(w[2:], "=")
			f := fs.Lookup(name)
			if f == nil {
				continue
			}
			if joined {
				_ = fs.Set(name, value)
			} else if b, ok := f.Value.(interface{ IsBoolFlag() bool }); !ok || !b.IsBoolFlag() {
				wants = name
			}
		case cmd != nil && given == 0 && find(all, cmd.name+" "+w) != nil:
			cmd = find(all, cmd.name+" "+w)
			fs = a.flagSet(cmd)
		case cmd != nil:
			given++
		default:
			name := strings.TrimSpace(word + " " + w)
			if cmd = find(all, name); cmd != nil {
				fs = a.flagSet(cmd)
			} else {
				word = name
			}
		}
	}
	switch {
	case wants == "profile":
		return a.profileNames()
	case wants == "shell":
		return []string{"bash", "fish", "powershell", "cmd", "dotenv", "json"}
	case wants == "interactive":
		return []string{"auto", "never", "always"}
	case wants == "event":
		return []string{"handout", "refusal"}
	case wants == "keystore":
		return settings.Backends
	case wants == "log-level":
		return []string{"debug", "info", "warn", "error"}
	case wants == "log-format":
		return []string{"text", "json"}
	case wants != "":
		return nil
	case strings.HasPrefix(typed, "-"):
		var names []string
		fs.VisitAll(func(f *flag.Flag) { names = append(names, "--"+f.Name) })
		return names
	case cmd == nil:
		return nextWords(all, word)
	case cmd.name == "completion" && given == 0:
		return []string{"bash", "zsh", "fish", "powershell"}
	case cmd.name == "help":
		return nextWords(all, "")
	case given == 0 && len(within(all, cmd.name)) > 0:
		return within(all, cmd.name)
	case cmd.profile && given == 0:
		return a.profileNames()
	case (cmd.name == "mfa remove" || cmd.name == "mfa code") && given == 0:
		return a.deviceNames()
	}
	return nil
}

// deviceNames are the MFA devices of the vault, if a daemon runs.
func (a *app) deviceNames() []string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client, err := a.dial(ctx)
	if err != nil {
		return nil
	}
	var r control.MFAListResult
	if client.Call(ctx, control.MethodMFAList, a.environment(), &r, nil) != nil {
		return nil
	}
	var names []string
	for _, d := range r.Devices {
		names = append(names, d.Serial)
	}
	return names
}

// nextWords are the words that go on from word, "" for none yet.
func nextWords(all []*command, word string) []string {
	seen := map[string]bool{}
	var names []string
	for _, c := range all {
		rest, ok := strings.CutPrefix(c.name, word)
		rest, _, _ = strings.Cut(strings.TrimPrefix(rest, " "), " ")
		if ok && !c.hidden && !seen[rest] {
			seen[rest] = true
			names = append(names, rest)
		}
	}
	return names
}

// profileNames asks the daemon if one runs. Pressing a key must not start
// one, nor have a keyring ask for its password: without it the files say
// what there is.
func (a *app) profileNames() []string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var names []string
	if client, err := a.dial(ctx); err == nil {
		var r control.ListResult
		if client.Call(ctx, control.MethodList, a.environment(), &r, nil) == nil {
			for _, p := range r.Profiles {
				names = append(names, p.Name)
			}
			return names
		}
	}
	s, err := a.settings()
	if err != nil {
		return nil
	}
	names = profiles.Load(profiles.Input{
		ConfigFile:      s.AWSConfigFile,
		CredentialsFile: s.AWSCredentials,
		KeyfobFile:      s.ProfilesFile,
		Home:            a.getenv("HOME"),
	}).Names()
	sort.Strings(names)
	return names
}

package cli

import "fmt"

// completionShells are the shells that there is a script for.
var completionShells = []string{"bash", "zsh", "fish", "powershell"}

// completion is `keyfob completion SHELL`: a script that has the shell ask
// `keyfob __complete`, so that commands, flags and profiles are those of the
// keyfob that runs.
func (a *app) completion(in invocation) int {
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion, "powershell": powershellCompletion}
	script, ok := scripts[in.args[0]]
	if !ok {
		hint := "bash, zsh, fish or powershell"
		if near := nearest(in.args[0], completionShells); near != "" {
			hint = "keyfob completion " + near
		}
		return a.fail("print a completion script", usage(fmt.Sprintf("cannot complete for the shell %q", in.args[0]), hint))
	}
	return a.print(script)
}

// The scripts. Each hands the words of the line to keyfob and offers what it
// prints; behind "--" the line is another program's.

const bashCompletion = `# bash completion for keyfob: eval "$(keyfob completion bash)"
_keyfob() {
    local line="${COMP_LINE:0:COMP_POINT}" cur kept="" found quoted i
    local -a words
    read -ra words <<<"$line"
    if [[ $line == *[[:space:]] ]]; then
        words+=("")
    fi
    cur="${words[${#words[@]}-1]}"
    COMPREPLY=()
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        if [[ ${words[i]} == -- ]]; then
            if ((i == ${#words[@]} - 2)); then
                while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -c -- "$cur")
            fi
            type compopt >/dev/null 2>&1 && compopt -o default
            return
        fi
    done
    # Readline replaces what follows the last : or =, not the whole word.
    if [[ $cur == *[:=]* && $COMP_WORDBREAKS == *:* ]]; then
        kept="${cur%"${cur##*[:=]}"}"
    fi
    # Readline inserts words as they are: what a shell would act on is quoted.
    while IFS= read -r found; do
        printf -v quoted %q "${found#"$kept"}"
        COMPREPLY+=("$quoted")
    done < <(keyfob __complete "${words[@]:1}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then
        type compopt >/dev/null 2>&1 && compopt -o default
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
    local -a found names told
    local line
    found=(${(f)"$(keyfob __describe "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    for line in $found; do
        names+=("${line%%$'\t'*}")
        told+=("${line/$'\t'/  -- }")
    done
    if (( ${#names} )); then
        compadd -l -d told -- $names
    else
        _files
    fi
}
compdef _keyfob keyfob
`

const fishCompletion = `# fish completion for keyfob: keyfob completion fish | source
function __keyfob_complete
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words)
    if test -n "$at"
        set -l rest
        if test $at -lt (count $words)
            set rest $words[(math $at + 1)..-1]
        end
        complete -C (string join -- ' ' (string escape -- $rest) (commandline -ct))
        return
    end
    set -e words[1]
    keyfob __describe $words (commandline -ct) 2>/dev/null
end
complete -c keyfob -f -a '(__keyfob_complete)'
`

const powershellCompletion = `# PowerShell completion for keyfob: keyfob completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName keyfob -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Where-Object { $_.Extent.StartOffset -lt $cursorPosition } | Select-Object -Skip 1 | ForEach-Object {
        if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $_.Value } else { $_.ToString() }
    })
    if ($wordToComplete -eq '') { $words += '""' }
    if ($words.Count -gt 1 -and $words[0..($words.Count - 2)] -contains '--') { return }
    keyfob __describe @words 2>$null | ForEach-Object {
        $name, $told = $_ -split [char]9, 2
        if (-not $told) { $told = $name }
        $text = $name
        if ($name -notmatch '^[A-Za-z0-9_./:=+-]+$') {
            $text = "'" + [System.Management.Automation.Language.CodeGeneration]::EscapeSingleQuotedStringContent($name) + "'"
        }
        [System.Management.Automation.CompletionResult]::new($text, $name, 'ParameterValue', $told)
    }
}
`

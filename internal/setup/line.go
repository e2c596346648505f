package setup

import (
	"errors"
	"fmt"
	"strings"
)

// plainWord reports whether s needs no quotes in any shell, nor in the splitting of SDKs.
func plainWord(s string) bool { return s != "" && only(s, digits+letters+`_@%+:,./\~^-`) }

// CredentialProcess is the value of credential_process with which an SDK
// asks this keyfob for a profile. program is an absolute path; flags go
// before ("--socket", "/x"). Some clients run the line by a shell and some
// split it themselves; one takes off a pair of quotes around the whole value,
// so that it never begins and ends with one. Error: a word that can't be
// written for all of them.
func CredentialProcess(program, profile string, flags []string, windows bool) (string, error) {
	name, err := quoted(profile, windows)
	if err != nil {
		return "", fmt.Errorf("cannot write a credential_process for profile %s: %w", profile, err)
	}
	path, err := quoted(program, windows)
	if err != nil {
		return "", withHint(fmt.Errorf("cannot write a credential_process for %s: %w", program, err), "put keyfob, or a link to it, where the path has none of these")
	}
	words := []string{path}
	for _, f := range flags {
		w, err := quoted(f, windows)
		if err != nil {
			return "", fmt.Errorf("cannot write %s into a credential_process: %w", f, err)
		}
		words = append(words, w)
	}
	if name[0] == '"' {
		return strings.Join(append(words, "--profile", name, "credential-process"), " "), nil
	}
	return strings.Join(append(words, "credential-process", "--profile", name), " "), nil
}

func quoted(word string, windows bool) (string, error) {
	backslash := strings.Contains(word, `\`)
	switch {
	case windows && strings.Contains(word, "%"):
		return "", errors.New("it has a %, which cmd.exe replaces")
	case plainWord(word) && (windows || !backslash) && word[0] != '~':
		return word, nil
	case strings.ContainsAny(word, "\"'$`\\\r\n\x00!*?") && !(windows && !strings.ContainsAny(word, "\"'$`\r\n\x00!*?")):
		return "", errors.New("it has quotes, backslashes or other characters that shells and SDKs read in different ways")
	case strings.Contains(word, " #") || strings.Contains(word, " ;"):
		return "", errors.New("it has a blank before # or ;, where config files begin a comment")
	case word == "":
		return "", errors.New("it is empty")
	}
	return `"` + word + `"`, nil
}

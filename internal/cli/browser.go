package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
	"unicode"
)

// checkURL refuses what is no web address: an opener would take it for a
// file or for a flag.
func checkURL(url string) error {
	_, rest, _ := strings.Cut(url, "://")
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") || rest == "" {
		return errors.New("it is no web address")
	}
	if strings.ContainsFunc(url, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '"' }) {
		return errors.New("its address has characters that an address can't have")
	}
	return nil
}

// browserLine is the command line that opens url: $BROWSER's, else that of
// the platform's opener where there is a desktop, else nil.
func (a *app) browserLine(url string) ([]string, error) {
	if own := a.getenv("BROWSER"); own != "" {
		words, err := splitCommand(own, runtime.GOOS != "windows")
		if err != nil {
			return nil, err
		}
		put := false
		for i, w := range words {
			if i > 0 && strings.Contains(w, "%s") {
				words[i], put = strings.ReplaceAll(w, "%s", url), true
			}
		}
		if !put {
			words = append(words, url)
		}
		return words, nil
	}
	if !a.graphical() {
		return nil, nil
	}
	switch runtime.GOOS {
	case "darwin":
		return []string{"open", url}, nil
	case "windows":
		return []string{"rundll32.exe", "url.dll,FileProtocolHandler", url}, nil
	}
	return []string{"xdg-open", url}, nil
}

// splitCommand splits a command line into words as a shell does, without
// expanding anything, and drops a trailing &. Where escape is false, a
// backslash is a character like others, as in the paths of Windows.
func splitCommand(line string, escape bool) ([]string, error) {
	line = strings.TrimSpace(line)
	if cut, ok := strings.CutSuffix(line, "&"); ok && !(escape && strings.HasSuffix(cut, `\`)) {
		line = strings.TrimSpace(cut)
	}
	var words []string
	var word strings.Builder
	begun := false
	var quote rune
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		c := runes[i]
		switch {
		case escape && c == '\\' && quote != '\'':
			if i++; i == len(runes) {
				return nil, errors.New("it ends in a backslash")
			}
			if next := runes[i]; quote == '"' && !strings.ContainsRune("\\\"$`", next) {
				word.WriteRune(c)
			}
			word.WriteRune(runes[i])
			begun = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"', c == '\'' && escape:
			quote, begun = c, true
		case unicode.IsSpace(c):
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c in it is never closed", quote)
	}
	if begun {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("it names no program")
	}
	return words, nil
}

const (
	openerLimit = 2 * time.Second        // in which an opener that fails has failed (CONTRACT.md §7)
	openerQuick = 300 * time.Millisecond // in which most of those that fail have
)

// browser is an opener that was started.
type browser struct{ process *os.Process }

// startBrowser starts line with our environment, detached: with streams and
// a session of its own, so that it outlives us and nobody waits for it.
func (a *app) startBrowser(line []string) (*browser, error) {
	path, err := exec.LookPath(line[0])
	if err != nil {
		var e *exec.Error
		if errors.As(err, &e) {
			err = e.Err // without the name, which the message has
		}
		return nil, err
	}
	cmd := &exec.Cmd{Path: path, Args: line, Env: unsetenv(a.Environ, "KEYFOB_PASSPHRASE")}
	if err := startOwn(cmd); err != nil {
		return nil, err
	}
	return &browser{cmd.Process}, nil
}

// watch returns an error if the opener fails within openerLimit. opened is
// called once, as soon as it seems to have worked.
func (b *browser) watch(ctx context.Context, opened func()) error {
	begun, told := time.Now(), false
	tell := func() {
		if !told {
			told = true
			opened()
		}
	}
	for {
		if over, err := exited(b.process); over {
			if err == nil {
				tell()
			}
			return err
		}
		took := time.Since(begun)
		if took > openerQuick {
			tell()
		}
		if took > openerLimit {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

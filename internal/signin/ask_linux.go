package signin

import (
	"context"
	"os"
	"strings"
)

func askers() map[string]asker {
	return map[string]asker{
		wayPinentry:       askPinentryWindow,
		wayPinentryCurses: askPinentryTerminal,
		wayZenity:         askZenity,
		wayKdialog:        askKdialog,
		wayOsascript:      askOsascript,
		wayTerminal:       askTerminal,
	}
}

// usualWays: a desktop session comes before the terminal, because who waits
// at a terminal is asked there by keyfob itself. A pinentry on a terminal is
// the last: it is for processes that have none but were told of one by
// GPG_TTY.
func usualWays(ctx context.Context, kind string) []string {
	var ways []string
	if graphical(ctx) {
		ways = windowWays(kind, strings.Contains(strings.ToUpper(os.Getenv("XDG_CURRENT_DESKTOP")), "KDE"))
	}
	if hasTerminal() {
		ways = append(ways, wayTerminal)
	} else if os.Getenv("GPG_TTY") != "" {
		ways = append(ways, wayPinentryCurses)
	}
	if len(ways) == 0 {
		return nil
	}
	return preferring(os.Getenv("PINENTRY_PROGRAM"), ways)
}

// windowWays orders the dialogs of a desktop. For a code that is worth
// nothing in half a minute the desktop's own dialog comes first, because
// pinentry may keep the keyboard and the screen to itself, and the code is
// often copied from another window. For anything else that is what one
// wants.
func windowWays(kind string, kde bool) []string {
	own, other := wayZenity, wayKdialog
	if kde {
		own, other = other, own
	}
	if kind == kindMFA {
		return []string{own, wayPinentry, other}
	}
	return []string{wayPinentry, own, other}
}

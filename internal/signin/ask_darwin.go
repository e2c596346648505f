package signin

import (
	"context"
	"os"
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

// usualWays: the session on the screen comes before the terminal, because
// who waits at a terminal is asked there by keyfob itself.
func usualWays(ctx context.Context, kind string) []string {
	var ways []string
	if graphical(ctx) {
		ways = []string{wayPinentry, wayOsascript}
		if kind == kindMFA { // see windowWays
			ways = []string{wayOsascript, wayPinentry}
		}
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

package signin

import (
	"context"
	"os"
)

func askers() map[string]asker {
	return map[string]asker{
		wayPinentry: askPinentryWindow,
		wayWindows:  askCredUI,
		wayTerminal: askTerminal,
	}
}

// usualWays: the desktop comes before the console, because who waits at a
// console is asked there by keyfob itself.
func usualWays(ctx context.Context, _ string) []string {
	var ways []string
	if graphical(ctx) {
		ways = preferring(os.Getenv("PINENTRY_PROGRAM"), []string{wayWindows})
	}
	if hasTerminal() {
		ways = append(ways, wayTerminal)
	}
	return ways
}

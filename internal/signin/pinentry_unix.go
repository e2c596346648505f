//go:build linux || darwin

package signin

import (
	"context"
	"fmt"
)

// askPinentryTerminal asks by a pinentry on the terminal.
func askPinentryTerminal(ctx context.Context, p prompt) (string, error) {
	tty := terminalName()
	if tty == "" {
		return "", fmt.Errorf("%w: there is no terminal", errNobody)
	}
	defer keepTerminal(tty)()
	return askPinentries(ctx, p, tty, "pinentry-curses", "pinentry-tty", "pinentry")
}

package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// question is the request of "ask".
type question struct {
	Kind    string `json:"kind"`    // "mfa", …
	Profile string `json:"profile"` // on whose behalf
	Serial  string `json:"serial"`  // of the MFA device
	Text    string `json:"text"`    // one line, where the kind has no words of its own
	Error   string `json:"error"`   // why it is asked again
	// Choices are the answers that count. What the person typed is not
	// judged here.
	Choices []string `json:"choices"`
	// Ways are the ways to try, in this order; none means what this machine
	// and session have, in a sensible order.
	Ways           []string `json:"ways"`
	TimeoutSeconds int      `json:"timeout_seconds"`
}

// answer is what "ask" prints.
type answer struct {
	Value   string `json:"value,omitempty"`
	Refused bool   `json:"refused,omitempty"`
}

// The names of the ways to ask.
const (
	wayPinentry       = "pinentry"        // a pinentry with a window
	wayPinentryCurses = "pinentry-curses" // a pinentry on the terminal
	wayZenity         = "zenity"
	wayKdialog        = "kdialog"
	wayOsascript      = "osascript"
	wayWindows        = "windows" // the credential dialog of Windows
	wayTerminal       = "terminal"
)

// asker asks in one way. Errors: errRefused; errNobody when this way does
// not exist here; the context's; any other means that it failed before there
// was an answer, and that the next way may be tried.
type asker func(ctx context.Context, p prompt) (string, error)

// doAsk asks q and prints the answer.
func doAsk(ctx context.Context, q question, out io.Writer) error {
	limit := askLimit
	if q.TimeoutSeconds > 0 {
		limit = min(time.Duration(q.TimeoutSeconds)*time.Second, 24*time.Hour)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("nobody answered in %s", limit))
	defer cancel()

	value, err := reach(ctx, q)
	switch {
	case err == nil:
		return writeJSON(out, answer{Value: value})
	case errors.Is(err, errRefused), errors.Is(context.Cause(ctx), errInterrupted):
		return writeJSON(out, answer{Refused: true})
	}
	return err
}

// writeJSON prints an answer.
func writeJSON(out io.Writer, a any) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	defer clear(b)
	if _, err := out.Write(append(b, '\n')); err != nil {
		return errors.New("nobody takes the answer")
	}
	return nil
}

// reach tries one way after the other until a person has answered.
func reach(ctx context.Context, q question) (string, error) {
	p := newPrompt(q)
	ways := q.Ways
	if len(ways) == 0 {
		ways = usualWays(ctx, q.Kind)
	}
	var why []string
	for _, name := range ways {
		ask := askers()[name]
		if ask == nil {
			return "", fmt.Errorf("%w: %q is no way to ask", errUsage, plain(name, 50))
		}
		typed, err := ask(ctx, p)
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err == nil:
			return p.value(typed)
		case errors.Is(err, errRefused):
			return "", err
		}
		why = append(why, name+": "+strings.TrimPrefix(err.Error(), errNobody.Error()+": "))
	}
	if len(why) == 0 {
		why = append(why, "there is neither a desktop session nor a terminal")
	}
	return "", fmt.Errorf("%w: %s", errNobody, strings.Join(why, "; "))
}

// preferring puts the pinentry that the person has chosen by
// PINENTRY_PROGRAM before everything else.
func preferring(chosen string, ways []string) []string {
	if chosen == "" {
		return ways
	}
	ways = slices.DeleteFunc(ways, func(w string) bool { return w == wayPinentry })
	return append([]string{wayPinentry}, ways...)
}

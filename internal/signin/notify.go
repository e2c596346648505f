package signin

import (
	"context"
	"strings"
)

// notification is the request of "notify".
type notification struct {
	Title string `json:"title"`
	Body  string `json:"body"`
}

func (n notification) cleaned() notification {
	return notification{Title: plain(n.Title, 200), Body: plainLines(n.Body, 500, 10)}
}

// showByAppleScript shows n by osascript, the script on its standard input.
func showByAppleScript(ctx context.Context, n notification) error {
	_, err := output(ctx, "display notification "+appleQuoted(n.Body)+" with title "+appleQuoted(n.Title)+"\n", "osascript", "-")
	return err
}

// appleQuoted is s, which holds no control character but line feeds, as a
// string of AppleScript.
func appleQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

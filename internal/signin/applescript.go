//go:build linux || darwin

package signin

import (
	"context"
	"errors"
	"strconv"
	"strings"
)

// showByAppleScript shows n by osascript, the script on its standard input.
func showByAppleScript(ctx context.Context, n notification) error {
	_, err := output(ctx, "display notification "+appleQuoted(n.Body)+" with title "+appleQuoted(n.Title)+"\n", "osascript", "-")
	return err
}

// askOsascript asks in a dialog of macOS. The script is on standard input,
// so that what it says is in no argument list.
func askOsascript(ctx context.Context, p prompt) (string, error) {
	script := `try
	activate
end try
try
	set shown to display dialog ` + appleQuoted(p.body()+"\n"+p.label) + ` with title ` + appleQuoted(p.title) + ` default answer "" with hidden answer buttons {"Cancel", "OK"} default button "OK" cancel button "Cancel" giving up after ` + strconv.Itoa(secondsLeft(ctx)) + `
	if gave up of shown then return "late"
	return "value:" & text returned of shown
on error number -128
	return "refused"
end try
`
	out, err := output(ctx, script, "osascript", "-")
	if err != nil {
		return "", err
	}
	if value, ok := strings.CutPrefix(out, "value:"); ok {
		return value, nil
	}
	if strings.TrimSpace(out) == "refused" {
		return "", errRefused
	}
	return "", errors.New("nobody answered")
}

// appleQuoted is s, which holds no control character but line feeds, as a
// string of AppleScript.
func appleQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

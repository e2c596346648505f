package signin

import (
	"context"
	"fmt"
	"strings"

	"github.com/gen2brain/beeep"
)

// show shows a toast. It takes no context: the caller's time limit ends the
// process.
func show(ctx context.Context, n notification) error {
	if !graphical(ctx) {
		return fmt.Errorf("%w: this process is not in a desktop session", errNobody)
	}
	beeep.AppName = "keyfob"
	return beeep.Notify(toastText(n.Title), toastText(n.Body), "")
}

// toastText takes out what is more than text to the toast library: it puts
// the text in a CDATA section, and where the Windows Runtime fails, in a
// PowerShell string that expands $(…).
func toastText(s string) string {
	return strings.NewReplacer("$", "\uff04", "`", "'", `"`, "'", "\u201c", "'", "\u201d", "'", "\u201e", "'", "]]>", "]] >").Replace(s)
}

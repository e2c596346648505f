package signin

import (
	"context"
	"fmt"
)

// show uses osascript. beeep would pass the text as arguments.
func show(ctx context.Context, n notification) error {
	if !graphical(ctx) {
		return fmt.Errorf("%w: no desktop session of this user is on the screen", errNobody)
	}
	return showByAppleScript(ctx, n)
}

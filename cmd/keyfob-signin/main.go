// Command keyfob-signin shows prompts and dialogs and drives the browser in
// the person's own session. The sources that need it bring its questions; it
// knows none yet and says so.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "keyfob-signin: cannot ask anything: no source of this version needs a dialog")
	fmt.Fprintln(os.Stderr, "hint: keyfob runs this program by itself; there is nothing to run by hand")
	os.Exit(2)
}

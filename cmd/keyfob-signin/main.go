// Command keyfob-signin shows notifications and asks questions in the
// person's own session. keyfob and a person's own keyfobd start it; a
// system daemon never does.
package main

import (
	"os"

	"keyfob/internal/signin"
)

func main() { os.Exit(signin.Main()) }

// Command keyfob is what people and credential_process run: it asks the
// keyfob daemon, and starts it when none runs.
package main

import (
	"os"

	"keyfob/internal/cli"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Process{
		Version: version,
		Environ: os.Environ(),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	}))
}

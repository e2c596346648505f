// Command keyfob is what people and credential_process run: it asks the
// keyfob daemon, and starts it when none runs.
package main

import (
	"os"

	"keyfob/internal/cli"
	"keyfob/internal/hot/early" // prints warm credentials before main is reached
)

// version is set by the build: -ldflags "-X main.version=…"; early.Version
// with it, or each credential-process takes a little longer.
var version = "dev"

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Process{
		Version: version,
		Environ: os.Environ(),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Early:   early.Answer,
	}))
}

// Command keyfobd is the keyfob daemon: it keeps AWS credentials fresh and
// serves them to local programs.
package main

import (
	"os"

	"keyfob/daemon"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	os.Exit(daemon.Main(os.Args[1:], version, os.Stdout, os.Stderr))
}

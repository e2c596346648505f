// Command keyfob-keyring does one keyring or passphrase operation for
// keyfobd, which starts it, and ends.
package main

import (
	"os"

	"keyfob/keystore/keyring"
)

func main() { os.Exit(keyring.Main()) }

//go:build !windows

package cli

import "os"

// enableColour reports whether the terminal understands colours.
func enableColour(*os.File) bool { return true }

package profiles

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// isNull reports whether path is the null device, by the name that is
// written or the one that it has as an absolute path.
func isNull(path string) bool {
	path = filepath.Clean(path)
	return strings.EqualFold(path, os.DevNull) || strings.EqualFold(path, `\\.\`+os.DevNull)
}

// keepOwner has nothing to do: a file made in a directory inherits its
// access list there.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

//go:build unix

package rolesanywhere

import "fmt"

// openToOthers warns of a key file that other users may read.
func openToOthers(f fileState) (warning, bool) {
	mode := f.info.Mode().Perm()
	if mode&0o044 == 0 {
		return warning{}, false
	}
	return warning{
		text: fmt.Sprintf("the private key %s can be read by other users (mode %04o)", f.path, mode),
		help: "chmod 600 " + f.path,
	}, true
}

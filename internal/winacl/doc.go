// Package winacl is about the access lists of Windows: it makes directories
// that nobody else may enter, and finds out who else may read a directory or
// write to a file. It is what modes and owners of files are elsewhere, where
// the package holds nothing.
//
// Administrators and the system are trusted, as root is: they can take
// whatever they want, and a list without them only breaks backups and the
// mending of a machine. Windows gives them every person's own directories,
// too.
package winacl

// Package profiles reads AWS's configuration files and keyfob's own, decides
// which value wins and can say why, and turns a profile into a chain of
// links. It is pure: it reads files, and neither calls the network nor
// keeps state. It also holds the editor that changes one setting of such a
// file and leaves every other byte as it was.
package profiles

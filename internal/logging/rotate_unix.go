//go:build !windows

package logging

import "os"

// putAside renames the file and begins another one. mu is held.
func (l *Rotating) putAside(to string) {
	_ = os.Rename(l.path, to)
	old := l.f
	if l.open() != nil {
		l.f, l.size = old, 0
		return
	}
	if l.moved != nil {
		l.moved(l.f)
	}
	_ = old.Close()
}

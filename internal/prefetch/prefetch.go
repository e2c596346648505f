// Package prefetch has a program's file at hand before it is started.
package prefetch

import "os"

// Program reads the first bytes of a program, for nothing else than that they
// are in memory then. Until the child's execve has passed, starting it holds
// the thread and the right to run Go code: with one processor for Go, nobody
// is answered while a cold disk or a slow network brings the program. From an
// ordinary call that right is taken back. A pipe or a device is not opened:
// that may block, or do something. Errors are left to the start itself.
func Program(path string) {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		return
	}
	_, _ = f.Read(make([]byte, 4096))
	_ = f.Close()
}

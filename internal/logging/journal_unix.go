//go:build !windows

package logging

import (
	"fmt"
	"os"
	"syscall"
)

func deviceInode(f *os.File) (string, bool) {
	st, err := f.Stat()
	if err != nil {
		return "", false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return fmt.Sprintf("%d:%d", sys.Dev, sys.Ino), true
}

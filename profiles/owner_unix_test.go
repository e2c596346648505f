//go:build unix

package profiles

import (
	"io/fs"
	"syscall"
)

func ownerOf(info fs.FileInfo) [2]uint32 {
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

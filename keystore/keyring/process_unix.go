//go:build unix

package keyring

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"keyfob/keystore/internal/wire"
)

// channel is the inherited end of the socket pair. Nothing that this program
// starts inherits it in turn.
func channel() (io.Reader, io.Writer, error) {
	var st unix.Stat_t
	if err := unix.Fstat(wire.ChannelFD, &st); err != nil {
		return nil, nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, nil, errors.New("it is no socket")
	}
	unix.CloseOnExec(wire.ChannelFD)
	f := os.NewFile(wire.ChannelFD, "keyfobd")
	return f, f, nil
}

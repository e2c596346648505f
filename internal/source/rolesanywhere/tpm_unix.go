//go:build unix

package rolesanywhere

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// openTPM opens a device, or a Unix socket that speaks the TPM's own
// protocol, as swtpm's does.
func openTPM(ctx context.Context, path string) (transport.TPMCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return linuxtpm.Open(path)
	}
	return transport.FromReadWriteCloser(&tpmSocket{ctx: ctx, path: path}), nil
}

// tpmSocket makes one connection for each command: emulators serve one at a
// time, and some end it after each answer.
type tpmSocket struct {
	ctx  context.Context // of the signature: bounds each command
	path string
	conn net.Conn
}

func (s *tpmSocket) Write(b []byte) (int, error) {
	_ = s.Close()
	var d net.Dialer
	c, err := d.DialContext(s.ctx, "unix", s.path)
	if err != nil {
		return 0, err
	}
	if end, ok := s.ctx.Deadline(); ok {
		_ = c.SetDeadline(end)
	} else {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
	}
	s.conn = c
	return c.Write(b)
}

func (s *tpmSocket) Read(b []byte) (int, error) {
	if s.conn == nil {
		return 0, net.ErrClosed
	}
	n, err := s.conn.Read(b)
	_ = s.Close()
	return n, err
}

func (s *tpmSocket) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}

package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// SystemSocket is where a system daemon listens.
const SystemSocket = `\\.\pipe\keyfob-system`

func dial(ctx context.Context, socket string) (Conn, int, error) {
	conn, err := winio.DialPipe(socket, nil)
	if c := ctx.Err(); c != nil && err != nil {
		return nil, 0, fmt.Errorf("cannot connect to %s: %w", socket, c)
	}
	if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) || errors.Is(err, windows.ERROR_PATH_NOT_FOUND) {
		return nil, 0, fmt.Errorf("%w (%s)", ErrNotRunning, socket)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot connect to %s: %w", socket, err)
	}
	pid, err := trust(conn, socket)
	if err != nil {
		_ = conn.Close()
		return nil, 0, err
	}
	return conn, pid, nil
}

// trust checks that the user whose process serves the pipe is our own or the
// system's: the owner of a pipe is its maker's.
func trust(conn any, socket string) (int, error) {
	f, ok := conn.(interface{ Fd() uintptr })
	if !ok {
		return 0, fmt.Errorf("cannot tell whose server %s is", socket)
	}
	handle := windows.Handle(f.Fd())
	sd, err := windows.GetSecurityInfo(handle, windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return 0, fmt.Errorf("cannot tell whose server %s is: %w", socket, err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return 0, fmt.Errorf("cannot tell whose server %s is: %w", socket, err)
	}
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return 0, fmt.Errorf("cannot tell who I am: %w", err)
	}
	switch {
	case owner.Equals(me.User.Sid):
	case owner.IsWellKnown(windows.WinLocalSystemSid), owner.IsWellKnown(windows.WinBuiltinAdministratorsSid):
	default:
		return 0, fmt.Errorf("cannot trust %s: %w (%s)", socket, ErrNotTrusted, owner)
	}
	var pid uint32
	if err := windows.GetNamedPipeServerProcessId(handle, &pid); err != nil {
		pid = 0
	}
	return int(pid), nil
}

func isHangUp(err error) bool {
	return errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, windows.ERROR_NO_DATA) || errors.Is(err, windows.ERROR_PIPE_NOT_CONNECTED)
}

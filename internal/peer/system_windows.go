package peer

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

const tcpTableOwnerPIDAll = 5 // TCP_TABLE_OWNER_PID_ALL (iprtrmib.h)

// system is the part of a Resolver that is particular to the operating
// system. A user is named by the SID of the process's token.
type system struct {
	getExtendedTCPTable *windows.LazyProc
	peekNamedPipe       *windows.LazyProc
}

func newSystem() system {
	return system{
		getExtendedTCPTable: windows.NewLazySystemDLL("iphlpapi.dll").NewProc("GetExtendedTcpTable"),
		peekNamedPipe:       windows.NewLazySystemDLL("kernel32.dll").NewProc("PeekNamedPipe"),
	}
}

func (system) close() error { return nil }

// ofUnix refuses: Windows does not tell who is at the other end of a Unix
// socket.
func (system) ofUnix(*net.UnixConn) (Caller, error) {
	return Caller{}, unidentified("a Unix socket of Windows")
}

// ofOther identifies the client of a named pipe. The pipe must refuse
// clients from other machines (go-winio's does).
//
// The pipe keeps the number of the process that connected, whatever became of
// that. It is still that process for as long as the pipe is: its end would be
// closed.
func (s system) ofOther(c net.Conn) (Caller, error) {
	pipe, ok := c.(interface{ Fd() uintptr })
	if !ok {
		return Caller{}, unidentified("a connection of type %T", c)
	}
	client := func() (uint32, error) {
		var pid uint32
		if err := windows.GetNamedPipeClientProcessId(windows.Handle(pipe.Fd()), &pid); err != nil {
			return 0, err
		}
		return pid, s.connected(pipe.Fd())
	}
	caller, err := identify(client)
	if err != nil {
		return Caller{}, err
	}
	caller.Via = ViaPipe
	caller.Parent = parent(uint32(caller.PID), caller.Start)
	return caller, nil
}

// connected returns nil while a pipe's other end is open.
func (s system) connected(pipe uintptr) error {
	if err := s.peekNamedPipe.Find(); err != nil {
		return err
	}
	if ok, _, err := s.peekNamedPipe.Call(pipe, 0, 0, 0, 0, 0); ok == 0 {
		return os.NewSyscallError("PeekNamedPipe", err)
	}
	return nil
}

// ofTCP finds the connection at the other end in the table of TCP
// connections, which names its process.
func (s system) ofTCP(c *net.TCPConn) (Caller, error) {
	client, ok := addrPort(c.RemoteAddr())
	server, ok2 := addrPort(c.LocalAddr())
	if !ok || !ok2 {
		return Caller{}, unidentified("a connection without addresses")
	}
	caller, err := identify(func() (uint32, error) { return s.owner(client, server) })
	if err != nil {
		return Caller{}, err
	}
	caller.Via = ViaTCP
	return caller, nil
}

// owner is the process that holds the socket with this local and remote
// address. An IPv4 connection may be an IPv6 socket's.
func (s system) owner(local, remote netip.AddrPort) (uint32, error) {
	families := []uint32{windows.AF_INET6}
	if local.Addr().Is4() {
		families = []uint32{windows.AF_INET, windows.AF_INET6}
	}
	for _, family := range families {
		table, err := s.table(family)
		if err != nil {
			return 0, err
		}
		if pid, ok := findTCPRow(table, family == windows.AF_INET6, local, remote); ok {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%s is no socket of this machine's", local)
}

func (s system) table(family uint32) ([]byte, error) {
	if err := s.getExtendedTCPTable.Find(); err != nil {
		return nil, err
	}
	size := uint32(16 << 10)
	for range 10 { // it may grow between two calls
		buf := make([]byte, size)
		r, _, _ := s.getExtendedTCPTable.Call(uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0,
			uintptr(family), tcpTableOwnerPIDAll, 0)
		switch windows.Errno(r) {
		case 0:
			return buf[:min(size, uint32(len(buf)))], nil
		case windows.ERROR_INSUFFICIENT_BUFFER:
			size += 4 << 10
		default:
			return nil, fmt.Errorf("cannot read the table of TCP connections: %w", windows.Errno(r))
		}
	}
	return nil, fmt.Errorf("cannot read the table of TCP connections: it grows faster than it is read")
}

// identify returns the process that who names. A PID can't become another
// process's while a handle to its process is open, so who is asked again
// with the handle open.
func identify(who func() (uint32, error)) (Caller, error) {
	pid, err := who()
	if err != nil {
		return Caller{}, unidentified("%w", err)
	}
	if pid == 0 {
		return Caller{}, unidentified("no process holds it")
	}
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, pid)
	if err != nil {
		return Caller{}, unidentified("cannot open its process: %w", err)
	}
	defer windows.CloseHandle(h)
	again, err := who()
	if err != nil || again != pid || !running(h) {
		return Caller{}, unidentified("its process has ended")
	}
	sid, err := userOf(h)
	if err != nil {
		return Caller{}, unidentified("cannot read its user: %w", err)
	}
	start, err := startOf(h)
	if err != nil {
		return Caller{}, unidentified("cannot read its process: %w", err)
	}
	return Caller{UID: sid, PID: int(pid), Start: start, Exe: exeOf(h)}, nil
}

// parent returns the process that started pid, nil when it has ended. A
// process that took its number since started later than pid.
func parent(pid uint32, start uint64) *Process {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil
	}
	defer windows.CloseHandle(snapshot)
	entry := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &entry); err == nil; err = windows.Process32Next(snapshot, &entry) {
		if entry.ProcessID == pid {
			break
		}
	}
	if err != nil || entry.ParentProcessID == 0 {
		return nil
	}
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, entry.ParentProcessID)
	if err != nil {
		return nil
	}
	defer windows.CloseHandle(h)
	upStart, err := startOf(h)
	if err != nil || upStart > start || !running(h) {
		return nil
	}
	return &Process{PID: int(entry.ParentProcessID), Start: upStart, Exe: exeOf(h)}
}

func running(h windows.Handle) bool {
	event, err := windows.WaitForSingleObject(h, 0)
	return err == nil && event == uint32(windows.WAIT_TIMEOUT)
}

func userOf(h windows.Handle) (string, error) {
	var token windows.Token
	if err := windows.OpenProcessToken(h, windows.TOKEN_QUERY, &token); err != nil {
		return "", err
	}
	defer token.Close()
	u, err := token.GetTokenUser()
	if err != nil {
		return "", err
	}
	return u.User.Sid.String(), nil
}

// startOf is the start time in 100 ns since 1601.
func startOf(h windows.Handle) (uint64, error) {
	var creation, exit, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &creation, &exit, &kernel, &user); err != nil {
		return 0, err
	}
	return uint64(creation.HighDateTime)<<32 | uint64(creation.LowDateTime), nil
}

// exeOf is the program's file, "" where it may not be read.
func exeOf(h windows.Handle) string {
	buf := make([]uint16, windows.MAX_LONG_PATH)
	size := uint32(len(buf))
	if err := windows.QueryFullProcessImageName(h, 0, &buf[0], &size); err != nil {
		return ""
	}
	return windows.UTF16ToString(buf[:size])
}

// Self is the user of this process, as Caller.UID names it, "" (nobody) if
// Windows does not tell.
func Self() string {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return ""
	}
	return u.User.Sid.String()
}

// IsSystem reports whether uid is the one that may do everything: root, or
// Windows' SYSTEM.
func IsSystem(uid string) bool { return uid == "S-1-5-18" }

// StartTime returns when the process started, in the unit of Process.Start.
// An error means that there is no such process, or none that may be seen.
func StartTime(pid int) (uint64, error) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(pid))
	if err != nil {
		return 0, fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	defer windows.CloseHandle(h)
	return startOf(h)
}

// Alive reports whether the process that had this PID and start time still
// runs.
func Alive(pid int, start uint64) bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(pid))
	if err != nil {
		return err == windows.ERROR_ACCESS_DENIED // there, and not to be looked at
	}
	defer windows.CloseHandle(h)
	at, err := startOf(h)
	return err == nil && at == start && running(h)
}

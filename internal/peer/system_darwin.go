package peer

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From XNU's bsd/sys/proc_info.h and bsd/sys/proc.h.
const (
	procInfoCallPIDInfo = 2
	procPIDPathInfo     = 11
	procPIDPathMax      = 4 * 1024
	procZombie          = 5 // SZOMB
)

// system is the part of a Resolver that is particular to the operating
// system. macOS has no namespaces to compare.
type system struct{}

func newSystem() system { return system{} }

func (system) close() error { return nil }

func (system) ofOther(c net.Conn) (Caller, error) {
	return Caller{}, unidentified("a connection of type %T", c)
}

// ofUnix identifies the process that called connect(2) on the other end:
// LOCAL_PEERCRED gives its effective uid then, LOCAL_PEERPID its pid
// (unix(4)). The pid is a number and no more, and so is that in the audit
// token of LOCAL_PEERTOKEN, which the kernel makes of it when it is asked. A
// process that took the number of one that ended passes for it if it has the
// same user; one of another user does not.
func (system) ofUnix(c *net.UnixConn) (Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, unidentified("%w", err)
	}
	var who *unix.Xucred
	var pid int
	var credErr, pidErr error
	if err := raw.Control(func(fd uintptr) {
		who, credErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		pid, pidErr = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	}); err != nil {
		return Caller{}, unidentified("%w", err)
	}
	if credErr != nil {
		return Caller{}, unidentified("cannot read LOCAL_PEERCRED: %w", credErr)
	}
	if pidErr != nil || pid <= 0 {
		return Caller{}, unidentified("cannot read LOCAL_PEERPID: %w", pidErr)
	}
	k, err := kinfo(pid)
	if err != nil {
		return Caller{}, unidentified("cannot read its process: %w", err)
	}
	if k.Eproc.Ucred.Uid != who.Uid {
		return Caller{}, unidentified("its process is not that of its user")
	}
	caller := Caller{UID: strconv.FormatUint(uint64(who.Uid), 10), PID: pid, Start: startOf(k), Exe: exe(pid), Via: ViaUnix}
	if k.Eproc.Tdev > 0 {
		caller.Terminal = fmt.Sprintf("tty:%d", k.Eproc.Tdev)
	}
	if ppid := int(k.Eproc.Ppid); ppid > 0 {
		if up, err := kinfo(ppid); err == nil {
			caller.Parent = &Process{PID: ppid, Start: startOf(up), Exe: exe(ppid)}
		}
	}
	// All of that was read by number: it was one process, and its parent all
	// the time, if both are the same afterwards.
	after, err := kinfo(pid)
	if err != nil || startOf(after) != caller.Start {
		return Caller{}, unidentified("its process has ended")
	}
	if after.Eproc.Ppid != k.Eproc.Ppid {
		caller.Parent = nil
	}
	return caller, nil
}

// ofTCP finds the socket at the other end in the kernel's list of TCP
// sockets. The list also names the process, whose user must be the socket's:
// a list whose form changed is refused rather than misread.
func (system) ofTCP(c *net.TCPConn) (Caller, error) {
	client, ok := addrPort(c.RemoteAddr())
	server, ok2 := addrPort(c.LocalAddr())
	if !ok || !ok2 {
		return Caller{}, unidentified("a connection without addresses")
	}
	list, err := unix.SysctlRaw("net.inet.tcp.pcblist_n")
	if err != nil {
		return Caller{}, unidentified("cannot read the list of TCP sockets: %w", err)
	}
	owner, ok := findPCB(list, client, server)
	if !ok {
		return Caller{}, unidentified("%s is no socket of this machine's", client)
	}
	k, err := kinfo(owner.pid)
	if err != nil || k.Eproc.Ucred.Uid != owner.uid {
		return Caller{}, unidentified("the process of %s is not that of its user", client)
	}
	caller := Caller{UID: strconv.FormatUint(uint64(owner.uid), 10), PID: owner.pid, Start: startOf(k), Exe: exe(owner.pid), Via: ViaTCP}
	if after, err := kinfo(owner.pid); err != nil || startOf(after) != caller.Start {
		return Caller{}, unidentified("its process has ended")
	}
	return caller, nil
}

func kinfo(pid int) (*unix.KinfoProc, error) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return nil, err
	}
	if int(k.Proc.P_pid) != pid {
		return nil, unix.ESRCH
	}
	return k, nil
}

// startOf is the start time in microseconds since 1970.
func startOf(k *unix.KinfoProc) uint64 {
	return uint64(k.Proc.P_starttime.Sec)*1e6 + uint64(k.Proc.P_starttime.Usec)
}

// exe is the program's file (what proc_pidpath(3) returns), "" where it may
// not be read.
func exe(pid int) string {
	buf := make([]byte, procPIDPathMax)
	// The wrapper in libSystem is out of reach without cgo; the sysctl that
	// is not, KERN_PROCARGS2, tells what the process itself may change.
	//lint:ignore SA1019 see above
	_, _, errno := unix.Syscall6(unix.SYS_PROC_INFO, procInfoCallPIDInfo, uintptr(pid), procPIDPathInfo, 0,
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return ""
	}
	path, _, _ := strings.Cut(string(buf), "\x00")
	return path
}

// Self is the user of this process, as Caller.UID names it.
func Self() string { return strconv.Itoa(os.Geteuid()) }

// IsSystem reports whether uid is the one that may do everything: root, or
// Windows' SYSTEM.
func IsSystem(uid string) bool { return uid == "0" }

// StartTime returns when the process started, in the unit of Process.Start.
// An error means that there is no such process, or none that may be seen.
func StartTime(pid int) (uint64, error) {
	k, err := kinfo(pid)
	if err != nil {
		return 0, fmt.Errorf("cannot read process %d: %w", pid, err)
	}
	return startOf(k), nil
}

// Alive reports whether the process that had this PID and start time still
// runs. A zombie counts as ended.
func Alive(pid int, start uint64) bool {
	k, err := kinfo(pid)
	return err == nil && startOf(k) == start && k.Proc.P_stat != procZombie
}

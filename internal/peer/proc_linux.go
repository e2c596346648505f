package peer

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// procPath is "/proc/PID/name".
func procPath(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

// readProc reads a small file of /proc into buf. It avoids package os,
// which would register the file with the poller: this is done for every
// connection of the control socket.
func readProc(path string, buf []byte) ([]byte, error) {
	return readProcAt(unix.AT_FDCWD, path, buf)
}

// readProcAt is readProc from the directory dir on.
func readProcAt(dir int, path string, buf []byte) ([]byte, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		return buf[:n], nil
	}
}

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	ppid  int    // field 4
	tty   int    // field 7, a device number, 0 for none
	start uint64 // field 22, clock ticks since boot
}

func readStat(pid int) (stat, error) {
	return readStatAt(unix.AT_FDCWD, procPath(pid, "stat"))
}

func readStatAt(dir int, path string) (stat, error) {
	var buf [1024]byte
	b, err := readProcAt(dir, path, buf[:])
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

var errStat = errors.New("cannot read a process's stat: unexpected form")

func parseStat(b []byte) (stat, error) {
	// The program's name in field 2 may hold anything, spaces and brackets
	// too: what counts starts after the last bracket.
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return stat{}, errStat
	}
	var s stat
	rest := b[end+1:]
	for field := 3; field <= 22; field++ {
		rest = bytes.TrimLeft(rest, " ")
		n := bytes.IndexByte(rest, ' ')
		if n <= 0 { // more fields follow the last that is read
			return stat{}, errStat
		}
		value := string(rest[:n])
		rest = rest[n:]
		var err error
		switch field {
		case 4:
			s.ppid, err = strconv.Atoi(value)
		case 7:
			s.tty, err = strconv.Atoi(value)
		case 22:
			s.start, err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return stat{}, errStat
		}
	}
	return s, nil
}

// exe is the program's file, "" where it may not be read. A file that was
// replaced or removed since has the suffix " (deleted)", which the kernel
// appends: it is kept, so that no rule takes it for the file that is there now.
func exe(pid int) string {
	var buf [unix.PathMax]byte
	return string(exeAt(unix.AT_FDCWD, procPath(pid, "exe"), buf[:]))
}

// exeAt is exe by a descriptor and a path, in buf.
func exeAt(dir int, path string, buf []byte) []byte {
	n, err := unix.Readlinkat(dir, path, buf)
	if err != nil || n >= len(buf) {
		return nil
	}
	return buf[:n]
}

// namespaces are those in which a caller must be at home: the user namespace
// because its ids are not ours, the pid and mount namespace because they are
// what a container is made of.
type namespaces [3]struct{ dev, ino uint64 }

var namespaceNames = [3]string{"user", "pid", "mnt"}

// readNamespaces reads those of a process: the path of its ns directory, from
// the directory dir on.
func readNamespaces(dir int, path string) (namespaces, error) {
	var ns namespaces
	for i, name := range namespaceNames {
		var st unix.Stat_t
		path := path + "/" + name
		if err := unix.Fstatat(dir, path, &st, 0); err != nil {
			return ns, &os.PathError{Op: "stat", Path: path, Err: err}
		}
		ns[i].dev, ns[i].ino = uint64(st.Dev), st.Ino
	}
	return ns, nil
}

// home is what this process knows of itself, read once.
type home struct {
	once     sync.Once
	err      error
	ns       namespaces
	outside  namespaces // those of PID 1, the zero value where they can't be read
	overflow uint32     // the uid that stands for every uid without a mapping here
}

func (h *home) load() error {
	h.once.Do(func() {
		// A /proc of another pid namespace would name other processes.
		self, err := os.Readlink("/proc/self")
		if err != nil {
			h.err = unidentified("cannot read /proc: %w", err)
			return
		}
		if self != strconv.Itoa(os.Getpid()) {
			h.err = unidentified("/proc is that of another pid namespace")
			return
		}
		if h.ns, err = readNamespaces(unix.AT_FDCWD, "/proc/self/ns"); err != nil {
			h.err = unidentified("cannot tell the own namespaces: %w", err)
			return
		}
		// A service manager's sandbox (ProtectSystem=, PrivateTmp=) gives this
		// process a mount namespace of its own, and leaves its callers in the
		// one of PID 1. To read that of another user's process takes
		// CAP_SYS_PTRACE; a process without it has no sandbox of that kind,
		// or knows nobody.
		if ns, err := readNamespaces(unix.AT_FDCWD, "/proc/1/ns"); err == nil {
			h.outside = ns
		}
		h.overflow = 65534
		if b, err := os.ReadFile("/proc/sys/kernel/overflowuid"); err == nil {
			v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
			if err != nil {
				h.err = unidentified("cannot read /proc/sys/kernel/overflowuid: %w", err)
				return
			}
			h.overflow = uint32(v)
		}
	})
	return h.err
}

// user turns a uid that the kernel gave into Caller.UID.
func (h *home) user(uid uint32) (string, error) {
	if uid == h.overflow || uid == ^uint32(0) {
		return "", unidentified("uid %d stands for a user of another user namespace", uid)
	}
	return strconv.FormatUint(uint64(uid), 10), nil
}

// same says whether a process lives in the namespaces of this one; the mount
// namespace may also be that of PID 1, if PID 1 shares the other two with this
// process. To look at another user's process takes CAP_SYS_PTRACE; without
// it the answer is no. Its ns directory is at path, from the directory dir on.
func (h *home) same(dir int, path string) error {
	ns, err := readNamespaces(dir, path)
	if err != nil {
		return unidentified("cannot tell its namespaces: %w", err)
	}
	for i := range ns {
		if ns[i] != h.ns[i] && ns != h.outsideHome() {
			return unidentified("it lives in another %s namespace", namespaceNames[i])
		}
	}
	return nil
}

// outsideHome are the namespaces of a process that is at home beside this one's
// sandbox: all of PID 1's. Where PID 1 lives in another user or pid namespace
// there are none: those of this process.
func (h *home) outsideHome() namespaces {
	const user, pid = 0, 1
	if h.outside[user] != h.ns[user] || h.outside[pid] != h.ns[pid] {
		return h.ns
	}
	return h.outside
}

// parent returns the parent of pid, which is ppid for as long as the caller
// can later read the same ppid from pid's stat: a PID can't become another
// process's while its process has children, for they get another parent when
// it ends. readProcess does so.
func parent(ppid int) *Process {
	if ppid <= 0 { // entered from outside this pid namespace
		return nil
	}
	s, err := readStat(ppid)
	if err != nil {
		return nil
	}
	return &Process{PID: ppid, Start: s.start, Exe: exe(ppid)}
}

var errEnded = errors.New("its process has ended")

// readProcess reads a process with its parent. Both are read by number; the
// child's stat is read before and after, so that what is returned was one
// process and its parent all the time between. The parent is nil when that
// can't be said of it.
func readProcess(pid int) (p Process, tty int, up *Process, err error) {
	before, err := readStat(pid)
	if err != nil {
		return p, 0, nil, err
	}
	p = Process{PID: pid, Start: before.start, Exe: exe(pid)}
	up = parent(before.ppid)
	after, err := readStat(pid)
	if err != nil {
		return Process{}, 0, nil, err
	}
	if after.start != before.start {
		return Process{}, 0, nil, errEnded
	}
	if after.ppid != before.ppid {
		up = nil
	}
	return p, before.tty, up, nil
}

// Self is the user of this process, as Caller.UID names it.
func Self() string { return strconv.Itoa(os.Geteuid()) }

// IsSystem reports whether uid is the one that may do everything: root, or
// Windows' SYSTEM.
func IsSystem(uid string) bool { return uid == "0" }

// StartTime returns when the process started, in the unit of Process.Start.
// An error means that there is no such process, or none that may be seen.
func StartTime(pid int) (uint64, error) {
	s, err := readStat(pid)
	return s.start, err
}

// Alive reports whether the process that had this PID and start time still
// runs. A zombie counts as ended.
func Alive(pid int, start uint64) bool {
	var buf [1024]byte
	b, err := readProc(procPath(pid, "stat"), buf[:])
	if err != nil {
		// hidden (hidepid) is not ended
		return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH)
	}
	s, err := parseStat(b)
	if err != nil || s.start != start {
		return false
	}
	rest := bytes.TrimLeft(b[bytes.LastIndexByte(b, ')')+1:], " ")
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

package peer

import (
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// holds reports whether the process whose directory of descriptors dir is has
// this socket as fd.
func holds(dir, fd int, inode uint32) bool {
	at, ok := socketAt(dir, strconv.Itoa(fd))
	return ok && at == inode
}

// isProcess reports whether the number is a process's and not a thread's
// (pidfd_open(2)): they share the numbers. Before Linux 5.3 it says no.
func isProcess(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// ownerOf is the user of a process: the owner of its directory (proc(5)),
// which for one that may not be looked at is root.
func ownerOf(pid int) (uint32, bool) {
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(pid), &st)
	return st.Uid, err == nil
}

// newestPID is the number that was given last (the last field of
// /proc/loadavg), 0 when it is not known.
func newestPID() int {
	var buf [128]byte
	b, err := readProc("/proc/loadavg", buf[:])
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) == 0 {
		return 0
	}
	pid, _ := strconv.Atoi(string(fields[len(fields)-1]))
	return pid
}

// processes lists the PIDs, highest first.
func processes() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.SortFunc(pids, func(a, b int) int { return b - a })
	return pids, nil
}

// socketAt is the inode of the socket that a link of /proc/PID/fd leads to.
func socketAt(dir int, name string) (inode uint32, ok bool) {
	var buf [64]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return 0, false
	}
	number, ok := bytes.CutPrefix(buf[:n], []byte("socket:["))
	if !ok {
		return 0, false
	}
	at, ok := decimal(bytes.TrimSuffix(number, []byte("]")))
	return uint32(at), ok && uint64(at) <= math.MaxUint32
}

// dirNames yields the names of what getdents64(2) filled b with.
func dirNames(b []byte) iter.Seq[[]byte] {
	const reclen, name = 16, 19 // of struct linux_dirent64
	return func(yield func([]byte) bool) {
		for len(b) > name {
			size := int(binary.NativeEndian.Uint16(b[reclen:]))
			if size <= name || size > len(b) {
				return
			}
			text, _, _ := bytes.Cut(b[name:size], []byte{0})
			if !yield(text) {
				return
			}
			b = b[size:]
		}
	}
}

func decimal(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > math.MaxInt/10-10 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(b) > 0
}

package peer

import (
	"context"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// findSocketOwner finds a process that holds the socket, by looking through
// /proc/PID/fd. The newest processes are looked at first, because a client
// that just connected is most often one that just started.
//
// A socket can be held by several processes (a fork, a passed descriptor);
// the newest one is taken.
func findSocketOwner(ctx context.Context, h *home, sock socket) (Process, error) {
	pids, err := processes()
	if err != nil {
		return Process{}, ErrNoProgram
	}
	want := "socket:[" + strconv.FormatUint(uint64(sock.inode), 10) + "]"
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return Process{}, err
		}
		before, err := readStat(pid)
		if err != nil || !holds(pid, want) {
			continue
		}
		if err := h.same(pid); err != nil {
			return Process{}, err
		}
		p := Process{PID: pid, Start: before.start, Exe: exe(pid)}
		// The PID was one and the same process all the time, and still
		// has the socket.
		if after, err := readStat(pid); err != nil || after.start != before.start || !holds(pid, want) {
			continue
		}
		return p, nil
	}
	return Process{}, ErrNoProgram
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

// holds reports whether one of the process's descriptors is want. A process
// that may not be looked at holds nothing.
func holds(pid int, want string) bool {
	dir := procPath(pid, "fd")
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	var buf [64]byte
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			n, err := unix.Readlink(dir+"/"+name, buf[:])
			if err == nil && string(buf[:n]) == want {
				return true
			}
		}
		if err != nil {
			return false
		}
	}
}

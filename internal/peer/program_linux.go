package peer

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Times and numbers of a finder.
const (
	findUsers   = 256             // whose processes are remembered
	findRecent  = 8               // processes of a user that are remembered
	findGuesses = 3               // descriptors at which a process's sockets were found last
	findNewest  = 128             // numbers below the newest that are tried before all processes are
	findSmall   = 256             // descriptors of a process that is looked through early
	findBefore  = 16              // of a larger one, those around the last guess are: so many before it
	findAfter   = 48              // and so many after, for the lowest free number is taken
	findTrust   = time.Second     // for which what was seen of a living process is believed
	findSeen    = 1 << 13         // sockets that are remembered
	findRest    = 3               // after a search through all processes, times what it took
	findMaxRest = time.Second / 2 // but no longer
)

// finder finds the process that holds a socket. The kernel names a socket's
// user and inode but no process, so it takes a look through /proc/PID/fd; to
// look at another user's takes CAP_SYS_PTRACE.
//
// It looks where the socket most likely is: in the processes in which this
// user's sockets were found last, then in the newest ones (a client that
// connects has often just started), then in all. What it passes by it
// remembers for a second, so that a burst of connections is one search.
// Searches are one at a time for each user, and after one through all
// processes the user waits three times as long as it took: that bounds what
// he can make this process spend, and nobody waits for another user.
//
// A socket can be held by several processes (a fork, a passed descriptor): the
// one that was found before, else the newest one is taken.
type finder struct {
	home *home

	mu    sync.Mutex // guards users
	users map[uint32]*owner
}

// owner is what is remembered of one user's processes.
type owner struct {
	uid  uint32
	turn chan struct{} // of one place: held while what follows is used

	buf    []byte   // for what is read of /proc: a goroutine's stack would have to grow for it
	gone   bool     // nothing is remembered any more
	recent []*known // last found first
	seen   map[uint32]sighting
	began  time.Time // of the last search through all processes that came to its end
	rest   time.Time // until when no other begins
}

// known is a process that was found. What is read from its directory on is read
// of that process, whoever has its number by now, and of nobody once it has
// ended (proc(5)).
type known struct {
	Process
	dir     int       // a descriptor of /proc/PID/fd: what is looked at most is there
	home    time.Time // when its namespaces were compared
	guesses []place   // last found first
	size    int       // how many it had
}

// place is a descriptor at which a socket was found, and the one at which the
// process's next socket was: a program that has several connections open in turn
// uses the same numbers in the same order.
type place struct{ fd, next int }

// sighting is where a socket was seen in passing.
type sighting struct {
	pid, fd int
	at      time.Time
}

func (f *finder) close() {
	f.mu.Lock()
	users := f.users
	f.users = nil
	f.mu.Unlock()
	for _, u := range users {
		u.forget()
	}
}

// forget closes what u holds, once nobody uses it.
func (u *owner) forget() {
	u.turn <- struct{}{}
	for _, k := range u.recent {
		k.close()
	}
	u.gone, u.recent, u.seen = true, nil, nil
	<-u.turn
}

func (f *finder) user(uid uint32) *owner {
	f.mu.Lock()
	u := f.users[uid]
	var old []*owner
	if u == nil {
		if len(f.users) >= findUsers {
			for _, o := range f.users {
				old = append(old, o)
			}
			clear(f.users)
		}
		if f.users == nil {
			f.users = map[uint32]*owner{}
		}
		u = &owner{uid: uid, turn: make(chan struct{}, 1)}
		f.users[uid] = u
	}
	f.mu.Unlock()
	for _, o := range old {
		o.forget()
	}
	return u
}

// find returns the process that holds the socket. Errors: ErrUnidentified
// when it lives in other namespaces; ErrNoProgram when none is found; the
// context's error when that ends first.
func (f *finder) find(ctx context.Context, sock socket) (Process, error) {
	u := f.user(sock.uid)
	asked := time.Now()
	for {
		select {
		case u.turn <- struct{}{}:
		case <-ctx.Done():
			return Process{}, ctx.Err()
		}
		p, err := u.look(ctx, f.home, sock.inode, asked)
		rest := time.Until(u.rest)
		<-u.turn
		if err != errRest {
			return p, err
		}
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return Process{}, ctx.Err()
		}
	}
}

// quick is find where the socket is at once found where this user's sockets
// were found last; ok is false where it is not, and where it takes waiting.
func (f *finder) quick(sock socket) (p Process, ok bool, err error) {
	u := f.user(sock.uid)
	select {
	case u.turn <- struct{}{}:
	default:
		return Process{}, false, nil
	}
	defer func() { <-u.turn }()
	k, fd := u.guess(sock.inode)
	if k == nil {
		return Process{}, false, nil
	}
	p, err = u.again(f.home, k, fd, sock.inode)
	return p, err != errAbsent, err
}

var (
	errRest   = errors.New("a search through all processes has to wait")
	errAbsent = errors.New("it does not hold the socket")
)

// look is one attempt of find. u.turn is held. errRest means that it is worth
// another one after u.rest.
func (u *owner) look(ctx context.Context, h *home, inode uint32, asked time.Time) (Process, error) {
	if err := ctx.Err(); err != nil {
		return Process{}, err
	}
	now := time.Now()
	if s, ok := u.seen[inode]; ok && now.Sub(s.at) < findTrust {
		if p, err := u.take(h, s.pid, s.fd, inode); err != errAbsent {
			return p, err
		}
	}
	if k, fd := u.guess(inode); k != nil {
		if p, err := u.again(h, k, fd, inode); err != errAbsent {
			return p, err
		}
	}
	for _, k := range slices.Clone(u.recent) {
		look := u.around
		if k.size <= findSmall {
			look = u.through
		}
		if p, err := look(h, k.PID, inode); err != errAbsent {
			return p, err
		}
	}
	newest := newestPID()
	for pid := newest; pid > 0 && pid > newest-findNewest; pid-- {
		if !isProcess(pid) {
			continue
		}
		if uid, ok := ownerOf(pid); ok && uid == u.uid {
			if p, err := u.through(h, pid, inode); err != errAbsent {
				return p, err
			}
		}
	}
	switch {
	case u.began.After(asked): // it was looked for everywhere, by another call
		return Process{}, ErrNoProgram
	case time.Now().Before(u.rest):
		return Process{}, errRest
	}
	return u.everywhere(ctx, h, inode)
}

// everywhere looks through all processes, first those of the user.
func (u *owner) everywhere(ctx context.Context, h *home, inode uint32) (Process, error) {
	began := time.Now()
	defer func() { u.rest = time.Now().Add(min(findRest*time.Since(began), findMaxRest)) }()
	pids, err := processes()
	if err != nil {
		return Process{}, ErrNoProgram
	}
	var others []int // a process that changed its user keeps its sockets
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return Process{}, err
		}
		if uid, ok := ownerOf(pid); !ok {
			continue
		} else if uid != u.uid {
			others = append(others, pid)
			continue
		}
		if p, err := u.through(h, pid, inode); err != errAbsent {
			return p, err
		}
	}
	for _, pid := range others {
		if err := ctx.Err(); err != nil {
			return Process{}, err
		}
		if p, err := u.through(h, pid, inode); err != errAbsent {
			return p, err
		}
	}
	u.began = began
	return Process{}, ErrNoProgram
}

// around looks at a known process's descriptors around the one that was
// found last.
func (u *owner) around(h *home, pid int, inode uint32) (Process, error) {
	k := u.known(pid)
	if k == nil || len(k.guesses) == 0 {
		return Process{}, errAbsent
	}
	now := time.Now()
	last := k.guesses[0].fd
	for i := range findAfter + findBefore {
		fd := last + 1 + i // who opens one after the other gets higher numbers
		if i >= findAfter {
			fd = last - 1 - (i - findAfter)
		}
		if at, ok := socketAt(k.dir, strconv.Itoa(fd)); ok && at == inode {
			if p, err := u.take(h, pid, fd, inode); err != errAbsent {
				return p, err
			}
		} else if ok {
			u.note(at, sighting{pid: pid, fd: fd, at: now})
		}
	}
	return Process{}, errAbsent
}

// through looks through a process's descriptors for the socket.
func (u *owner) through(h *home, pid int, inode uint32) (Process, error) {
	dir, err := unix.Open(procPath(pid, "fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Process{}, errAbsent
	}
	defer unix.Close(dir)
	buf := u.buffer()
	now := time.Now()
	found, passed := -1, 0
	for found < 0 || passed < findSmall {
		n, err := ignoringEINTR(func() (int, error) { return unix.Getdents(dir, buf) })
		if n <= 0 || err != nil {
			break
		}
		for name := range dirNames(buf[:n]) {
			fd, ok := decimal(name)
			if !ok {
				continue // . and ..
			}
			passed++
			at, ok := socketAt(dir, string(name))
			switch {
			case !ok:
			case at == inode:
				found = fd
			default:
				u.note(at, sighting{pid: pid, fd: fd, at: now})
			}
		}
	}
	if found < 0 {
		return Process{}, errAbsent
	}
	p, err := u.take(h, pid, found, inode)
	if k := u.known(pid); k != nil {
		k.size = passed
	}
	return p, err
}

// note remembers where a socket was seen in passing: the first place of the
// last second, which is the newest process.
func (u *owner) note(inode uint32, s sighting) {
	if old, ok := u.seen[inode]; ok && s.at.Sub(old.at) < findTrust && old.pid != s.pid {
		return
	}
	if u.seen == nil || len(u.seen) >= findSeen {
		u.seen = map[uint32]sighting{}
	}
	u.seen[inode] = s
}

// take makes sure that pid, which was seen to hold the socket as its
// descriptor fd, is one process that holds it now, and returns it. errAbsent
// when that is not so.
func (u *owner) take(h *home, pid, fd int, inode uint32) (Process, error) {
	k := u.known(pid)
	if k != nil && !k.alive() { // the number is another's by now
		u.drop(k)
		k = nil
	}
	if k == nil {
		dir, err := unix.Open(procPath(pid, "fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return Process{}, errAbsent
		}
		k = &known{Process: Process{PID: pid}, dir: dir, size: findSmall}
		s, err := k.stat()
		if err != nil {
			k.close()
			return Process{}, errAbsent
		}
		k.Start = s.start
	}
	if !holds(k.dir, fd, inode) {
		if u.known(pid) == nil {
			k.close()
		}
		return Process{}, errAbsent
	}
	return u.again(h, k, fd, inode)
}

// guess looks at the descriptors at which the user's sockets were found last.
func (u *owner) guess(inode uint32) (*known, int) {
	for _, k := range u.recent {
		if len(k.guesses) == 0 {
			continue
		}
		next := k.guesses[0].next
		if holds(k.dir, next, inode) {
			return k, next
		}
		for _, g := range k.guesses {
			if g.fd != next && holds(k.dir, g.fd, inode) {
				return k, g.fd
			}
		}
	}
	return nil, 0
}

// again returns a process that was just seen to hold the socket as its
// descriptor fd, with what may have changed of it. errAbsent when it does not
// hold it any more.
func (u *owner) again(h *home, k *known, fd int, inode uint32) (Process, error) {
	if now := exeAt(k.dir, "../exe", u.buffer()[:unix.PathMax]); string(now) != k.Exe {
		k.Exe = string(now)
	}
	if k.Exe == "" && !holds(k.dir, fd, inode) { // it has ended
		u.drop(k)
		return Process{}, errAbsent
	}
	if now := time.Now(); now.Sub(k.home) >= findTrust {
		if err := h.same(k.dir, "../ns"); err != nil {
			if !holds(k.dir, fd, inode) { // it has ended
				err = errAbsent
			}
			u.drop(k)
			return Process{}, err
		}
		k.home = now
	}
	p := k.Process
	if u.gone {
		k.close()
		return p, nil
	}
	k.found(fd)
	if i := slices.Index(u.recent, k); i >= 0 {
		u.recent = slices.Delete(u.recent, i, i+1)
	}
	u.recent = slices.Insert(u.recent, 0, k)
	if len(u.recent) > findRecent {
		u.recent[findRecent].close()
		u.recent = u.recent[:findRecent]
	}
	return p, nil
}

func (u *owner) known(pid int) *known {
	for _, k := range u.recent {
		if k.PID == pid {
			return k
		}
	}
	return nil
}

// drop forgets k, which may be new.
func (u *owner) drop(k *known) {
	u.recent = slices.DeleteFunc(u.recent, func(o *known) bool { return o == k })
	k.close()
}

func (u *owner) buffer() []byte {
	if u.buf == nil {
		u.buf = make([]byte, 32<<10)
	}
	return u.buf
}

// found notes that a socket was found at fd.
func (k *known) found(fd int) {
	at := place{fd, fd}
	if len(k.guesses) > 0 {
		k.guesses[0].next = fd
	}
	if i := slices.IndexFunc(k.guesses, func(g place) bool { return g.fd == fd }); i >= 0 {
		at = k.guesses[i]
		k.guesses = slices.Delete(k.guesses, i, i+1)
	}
	k.guesses = slices.Insert(k.guesses, 0, at)
	k.guesses = k.guesses[:min(len(k.guesses), findGuesses)]
}

func (k *known) close() { _ = unix.Close(k.dir) }

func (k *known) stat() (stat, error) { return readStatAt(k.dir, "../stat") }

// alive reports whether the number is still that of this process: it runs, or
// its end has not been asked for yet.
func (k *known) alive() bool {
	_, err := k.stat()
	return err == nil
}

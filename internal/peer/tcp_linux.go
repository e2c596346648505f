package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// From linux/sock_diag.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56 // struct inet_diag_req_v2
	diagAnswerSize   = 72 // struct inet_diag_msg
	diagTimeout      = time.Second
)

// States in which a TCP socket still belongs to the process that connected:
// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING. In the
// others the kernel answers for something else: a listener on the same port,
// or what is left of a closed socket, both with a uid that is not the
// caller's (uid 0 for TIME_WAIT and for a half-made connection).
const ownedStates = 1<<1 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// ofTCP finds the socket at the other end of c in this network namespace:
// the one whose own address is c's remote address, and the other way round.
func (s system) ofTCP(c *net.TCPConn) (Caller, error) {
	if err := s.home.load(); err != nil {
		return Caller{}, err
	}
	client, ok := addrPort(c.RemoteAddr())
	server, ok2 := addrPort(c.LocalAddr())
	if !ok || !ok2 {
		return Caller{}, unidentified("a connection without addresses")
	}
	sock, err := s.diag.find(client, server)
	if err != nil {
		return Caller{}, err
	}
	uid, err := s.home.user(sock.uid)
	if err != nil {
		return Caller{}, err
	}
	find := func(ctx context.Context) (Process, error) { return s.finder.find(ctx, sock) }
	quick := func() (Process, bool, error) { return s.finder.quick(sock) }
	return Caller{UID: uid, Via: ViaTCP, behind: &behind{find: find, quick: quick}}, nil
}

// socket is what inet_diag tells of one.
type socket struct {
	uid   uint32
	inode uint32
}

// diag asks the kernel for one socket at a time (sock_diag(7)) over one kept
// netlink connection. That is a bare descriptor: one that is registered with
// Go's poller, as package netlink's is, wakes a poller thread with each
// answer, which took this look-up from 3 µs to 6.
type diag struct {
	mu   sync.Mutex // guards what follows, and keeps a question and its answer together
	open bool       // false until it is needed, and after an error
	fd   int
	seq  uint32     // of the last question
	buf  [8192]byte // for answers
}

func (d *diag) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.drop()
}

// drop closes the kept connection; d.mu is held.
func (d *diag) drop() error {
	if !d.open {
		return nil
	}
	d.open = false
	return os.NewSyscallError("close", unix.Close(d.fd))
}

func (d *diag) dial() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	// Connected to the kernel (port 0), it takes no other process's messages.
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return errors.Join(os.NewSyscallError("connect", err), unix.Close(fd))
	}
	d.open, d.fd = true, fd
	return nil
}

// find returns the socket with this local and remote address.
func (d *diag) find(local, remote netip.AddrPort) (socket, error) {
	request, err := diagRequest(local, remote)
	if err != nil {
		return socket{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	answer, err := d.ask(request)
	if errors.Is(err, unix.ENOENT) {
		return socket{}, unidentified("%s is no socket of this machine's", local)
	}
	if err != nil {
		return socket{}, unidentified("cannot ask the kernel about %s: %w", local, err)
	}
	return parseDiag(answer, local, remote)
}

// ask sends one request and returns the answer's body, which is good until
// the next call. A kept connection that fails is replaced once. d.mu is held.
func (d *diag) ask(request []byte) ([]byte, error) {
	for {
		kept := d.open
		if !kept {
			if err := d.dial(); err != nil {
				return nil, err
			}
		}
		answer, err := d.askOnce(request)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return answer, err
		}
		_ = d.drop()
		if !kept {
			return nil, err
		}
	}
}

func (d *diag) askOnce(request []byte) ([]byte, error) {
	d.seq++
	setHeader(request, d.seq)
	if _, err := ignoringEINTR(func() (int, error) { return unix.Write(d.fd, request) }); err != nil {
		return nil, os.NewSyscallError("write", err)
	}
	// The kernel has answered before write returns. Should it ever answer
	// later, this waits, but not for long.
	deadline := time.Now().Add(diagTimeout)
	for {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(d.fd, d.buf[:]) })
		if err == nil {
			return parseMessage(d.buf[:n], d.seq)
		}
		left := time.Until(deadline)
		if err != unix.EAGAIN || left <= 0 {
			return nil, os.NewSyscallError("read", err)
		}
		fds := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return nil, os.NewSyscallError("poll", err)
		}
	}
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// setHeader fills in the nlmsghdr (netlink(7)) before a request.
func setHeader(b []byte, seq uint32) {
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], seq)
}

// parseMessage returns the body of the one message in b, or the error that
// it carries.
func parseMessage(b []byte, seq uint32) ([]byte, error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return nil, errors.New("a short answer")
	}
	size := binary.NativeEndian.Uint32(b[0:])
	kind := binary.NativeEndian.Uint16(b[4:])
	if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(b)) || binary.NativeEndian.Uint32(b[8:]) != seq {
		return nil, errors.New("an answer to another question")
	}
	body := b[unix.NLMSG_HDRLEN:size]
	switch {
	case kind == sockDiagByFamily:
		return body, nil
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		if errno := -int32(binary.NativeEndian.Uint32(body)); errno > 0 {
			return nil, unix.Errno(errno)
		}
	}
	return nil, errors.New("an answer of another kind")
}

// diagRequest is the message that asks for exactly one socket: a header (see
// setHeader) and struct inet_diag_req_v2. Addresses
// that are IPv4 are asked for as IPv4, which also finds IPv6 sockets on
// ::ffff:a.b.c.d.
func diagRequest(local, remote netip.AddrPort) ([]byte, error) {
	if local.Addr().Is4() != remote.Addr().Is4() {
		return nil, unidentified("a connection between two address families")
	}
	message := make([]byte, unix.NLMSG_HDRLEN+diagRequestSize)
	b := message[unix.NLMSG_HDRLEN:]
	b[0] = unix.AF_INET6
	if local.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	b[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // states: judged in the answer
	id := b[8:]
	binary.BigEndian.PutUint16(id[0:], local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	putAddr(id[4:20], local.Addr())
	putAddr(id[20:36], remote.Addr())
	if zone := local.Addr().Zone(); zone != "" { // link-local: an address per interface
		i, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, unidentified("%w", err)
		}
		binary.NativeEndian.PutUint32(id[36:], uint32(i.Index))
	}
	for i := 40; i < 48; i++ { // INET_DIAG_NOCOOKIE
		id[i] = 0xff
	}
	return message, nil
}

func putAddr(b []byte, a netip.Addr) {
	if a.Is4() {
		raw := a.As4()
		copy(b, raw[:])
		return
	}
	raw := a.As16()
	copy(b, raw[:])
}

// parseDiag reads struct inet_diag_msg and refuses one that is not about
// this connection, or about a socket that no process holds.
func parseDiag(b []byte, local, remote netip.AddrPort) (socket, error) {
	if len(b) < diagAnswerSize {
		return socket{}, unidentified("an answer of %d bytes from the kernel", len(b))
	}
	family, state, id := b[0], b[1], b[4:52]
	if state > 31 || ownedStates&(1<<state) == 0 {
		return socket{}, unidentified("%s is closed or only listens (state %d)", local, state)
	}
	addr := func(b []byte) netip.Addr {
		if family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b[:16])).Unmap()
	}
	if addr(id[4:20]) != local.Addr().WithZone("") || addr(id[20:36]) != remote.Addr().WithZone("") ||
		binary.BigEndian.Uint16(id[0:]) != local.Port() || binary.BigEndian.Uint16(id[2:]) != remote.Port() {
		return socket{}, unidentified("the kernel answered about another connection than %s", local)
	}
	sock := socket{
		uid:   binary.NativeEndian.Uint32(b[64:]),
		inode: binary.NativeEndian.Uint32(b[68:]),
	}
	if sock.inode == 0 {
		// Closed by its process while data is still under way. Kernels
		// differ in what uid they then give; some say 0.
		return socket{}, unidentified("%s was closed by its process", local)
	}
	return sock, nil
}

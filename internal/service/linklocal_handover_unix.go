//go:build unix

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handOverPath is handOverSocket by the custom of the platform.
func handOverPath() string {
	if runtime.GOOS == "darwin" {
		return "/var" + handOverSocket
	}
	return handOverSocket
}

// answerHandOver reads "ADDRESS:PORT\n" and answers with the socket of that
// address, as SCM_RIGHTS beside the byte '+', or with '-'.
func answerHandOver(c *net.UnixConn, listeners []*net.TCPListener, uid uint32) error {
	caller, err := peerUID(c)
	if err != nil || !mayHandOver(caller, uid) {
		_, _ = c.Write([]byte{'-'})
		return errors.Join(err, errNotHanded)
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err != nil {
		return err
	}
	want, err := netip.ParseAddrPort(strings.TrimSuffix(string(b[:n]), "\n"))
	if err != nil {
		return err
	}
	for _, l := range listeners {
		if at := l.Addr().(*net.TCPAddr).AddrPort(); at.Port() != want.Port() || at.Addr().Unmap() != want.Addr().Unmap() {
			continue
		}
		f, err := l.File()
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, _, err = c.WriteMsgUnix([]byte{'+'}, unix.UnixRights(int(f.Fd())), nil)
		return err
	}
	_, _ = c.Write([]byte{'-'})
	return errNotHanded
}

// askHandOver asks at the socket path for the listener at an address. What
// comes is looked at: a socket of another address, or one that does not
// listen, is an error.
func askHandOver(path string, at netip.AddrPort) (net.Listener, error) {
	// Whoever could put a socket there of their own could serve this user
	// false callers: the directories are root's alone.
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return nil, err
		}
		if st.Uid != trustedOwner() || st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
			return nil, fmt.Errorf("%s is not root's alone", dir)
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	d := net.Dialer{Timeout: handOverTime}
	raw, err := d.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	c := raw.(*net.UnixConn)
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(handOverTime))
	if _, err := c.Write([]byte(at.String() + "\n")); err != nil {
		return nil, err
	}
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	fds, err := receivedFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range fds {
			_ = f.Close() // the listener has a duplicate
		}
	}()
	if n != 1 || b[0] != '+' || len(fds) != 1 {
		return nil, errNotHanded
	}
	l, err := listenerOf(fds[0])
	if err != nil {
		return nil, err
	}
	have, ok := l.Addr().(*net.TCPAddr)
	if !ok || have.AddrPort().Port() != at.Port() || have.AddrPort().Addr().Unmap() != at.Addr().Unmap() {
		_ = l.Close()
		return nil, fmt.Errorf("it is the socket of %s", l.Addr())
	}
	return l, nil
}

// trustedOwner is who must own the way to the socket.
func trustedOwner() uint32 { return 0 }

func receivedFiles(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			_ = unix.SetNonblock(fd, true)
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

// runHandOver is `keyfobd service link-local hand-over`: under systemd with
// the sockets that it opened, elsewhere it is started as root, adds the
// addresses, opens the sockets itself and then becomes nobody.
func (l *linkLocal) runHandOver(ctx context.Context, name string, addrs []netip.Addr) error {
	who, err := findUser(name)
	if err != nil {
		return fail("keyfob link-local enable --user NAME", "cannot hand the metadata address to %s: there is no such user", name)
	}
	id, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return fail("", "cannot hand the metadata address to %s: their id is %s", name, who.Uid)
	}
	notify := NewNotifier()
	inherited, err := Listeners()
	if err != nil {
		return err
	}
	defer func() { _ = inherited.Close() }()
	var asked *net.UnixListener
	var listeners []*net.TCPListener
	for _, h := range inherited.list {
		switch x := h.listener.(type) {
		case *net.UnixListener:
			asked = x
		case *net.TCPListener:
			listeners = append(listeners, x)
		}
	}
	if asked == nil && len(listeners) == 0 {
		if asked, listeners, err = l.openHandOver(ctx, int(id), addrs); err != nil {
			return err
		}
		defer func() {
			_ = asked.Close()
			for _, t := range listeners {
				_ = t.Close()
			}
		}()
		if err := becomeNobody(); err != nil {
			return err
		}
	}
	if asked == nil || len(listeners) == 0 {
		return fail("keyfob link-local enable mends it", "cannot hand over the metadata address: the service manager gave no sockets")
	}
	_ = notify.Ready("handing " + metadataIPv4 + " to the keyfobd of " + name)
	return handOver(ctx, asked, listeners, uint32(id))
}

// openHandOver makes what systemd's units make, as root.
func (l *linkLocal) openHandOver(ctx context.Context, uid int, addrs []netip.Addr) (asked *net.UnixListener, listeners []*net.TCPListener, err error) {
	defer func() {
		if err != nil {
			for _, t := range listeners {
				_ = t.Close()
			}
		}
	}()
	if err := l.up(ctx, addrs); err != nil {
		return nil, nil, err
	}
	var lc net.ListenConfig
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, metadataPort).String()
		t, err := lc.Listen(ctx, "tcp", at)
		if err != nil {
			help := ""
			if errors.Is(err, syscall.EADDRINUSE) {
				help = "another program listens there; end that one"
			}
			return nil, listeners, fail(help, "cannot listen at %s: %w", at, errors.Unwrap(err))
		}
		listeners = append(listeners, t.(*net.TCPListener))
	}
	path := handOverPath()
	if _, err := makeDirs(filepath.Dir(path)); err != nil {
		return nil, listeners, fileError("write", path, err)
	}
	_ = os.Remove(path) // that of a run before, which was killed
	u, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, listeners, fail("", "cannot listen at %s: %w", path, err)
	}
	asked = u.(*net.UnixListener)
	err = errors.Join(os.Chmod(path, 0o600), os.Chown(path, uid, -1))
	if err != nil {
		_ = asked.Close()
		return nil, listeners, fileError("write", path, err)
	}
	return asked, listeners, nil
}

// becomeNobody gives root's rights up: all that is left to do is to answer.
func becomeNobody() error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid := 65534, 65534
	if u, err := user.Lookup("nobody"); err == nil {
		n, err1 := strconv.ParseInt(u.Uid, 10, 64)
		g, err2 := strconv.ParseInt(u.Gid, 10, 64)
		if err1 == nil && err2 == nil { // macOS: -2
			uid, gid = int(uint32(n)), int(uint32(g))
		}
	}
	if err := errors.Join(syscall.Setgroups([]int{}), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fail("", "cannot give up root's rights: %w", err)
	}
	return nil
}

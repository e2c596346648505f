package service

import (
	"context"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// peerUID is the user at the other end (unix(4), LOCAL_PEERCRED).
func peerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Xucred
	var e error
	if err := raw.Control(func(fd uintptr) {
		cred, e = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if e != nil {
		return 0, e
	}
	return cred.Uid, nil
}

// addLoopback adds a to lo0 as an alias (ifconfig(8)).
func addLoopback(ctx context.Context, a netip.Addr) error {
	if a.Is4() {
		return ifconfig(ctx, "lo0", "alias", a.String(), "255.255.255.255")
	}
	return ifconfig(ctx, "lo0", "inet6", a.String(), "prefixlen", "128", "alias")
}

func removeLoopback(ctx context.Context, a netip.Addr) error {
	if where, err := interfaceOf(a); err == nil && where == "" {
		return nil
	}
	if a.Is4() {
		return ifconfig(ctx, "lo0", "-alias", a.String())
	}
	return ifconfig(ctx, "lo0", "inet6", a.String(), "-alias")
}

func ifconfig(ctx context.Context, args ...string) error {
	argv := append([]string{"/sbin/ifconfig"}, args...)
	out, err := command(ctx, argv...)
	if err != nil {
		return commandError(argv, out, err)
	}
	return nil
}

// firmware tells nothing here: a Mac of EC2's is known by what answers at
// the address.
func firmware(string) map[string]string { return nil }

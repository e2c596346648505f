package service

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// addLoopback adds a to lo; one that is there already is no failure.
func addLoopback(_ context.Context, a netip.Addr) error {
	err := changeLoopback(a, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// removeLoopback takes a from lo; one that is not there is no failure.
func removeLoopback(_ context.Context, a netip.Addr) error {
	err := changeLoopback(a, unix.RTM_DELADDR, 0)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// changeLoopback speaks rtnetlink(7) itself: ip(8) is not on every machine,
// and need not be run with a capability.
func changeLoopback(a netip.Addr, kind, flags uint16) error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	_ = unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	family := byte(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	order := binary.NativeEndian
	raw := a.AsSlice()
	attr := func(b []byte, kind uint16, value []byte) []byte {
		b = order.AppendUint16(b, uint16(4+len(value)))
		b = order.AppendUint16(b, kind)
		return append(b, value...)
	}
	// struct ifaddrmsg: family, prefix length, flags, scope, index.
	body := []byte{family, byte(a.BitLen()), 0, unix.RT_SCOPE_HOST}
	body = order.AppendUint32(body, uint32(lo.Index))
	body = attr(body, unix.IFA_LOCAL, raw)
	body = attr(body, unix.IFA_ADDRESS, raw)
	if a.Is6() {
		body = attr(body, unix.IFA_FLAGS, order.AppendUint32(nil, unix.IFA_F_NODAD))
	}
	m := order.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	m = order.AppendUint16(m, kind)
	m = order.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	m = order.AppendUint32(m, 1) // sequence
	m = order.AppendUint32(m, 0)
	if err := unix.Sendto(s, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, b, 0)
	if err != nil {
		return err
	}
	answers, err := syscall.ParseNetlinkMessage(b[:n])
	if err != nil {
		return err
	}
	for _, r := range answers {
		if r.Header.Type == unix.NLMSG_ERROR && len(r.Data) >= 4 {
			if code := int32(order.Uint32(r.Data)); code != 0 {
				return syscall.Errno(-code)
			}
			return nil
		}
	}
	return fmt.Errorf("the kernel did not say what came of it")
}

// firmware are the firmware's facts by their names under /sys/class/dmi/id.
func firmware(root string) map[string]string {
	facts := map[string]string{}
	for _, m := range cloudMarks {
		if _, done := facts[m.file]; done {
			continue
		}
		b, _ := os.ReadFile(filepath.Join(root, "/sys/class/dmi/id", m.file))
		facts[m.file] = strings.TrimSpace(string(b))
	}
	// A paravirtual machine of EC2's first years has no firmware.
	if b, err := os.ReadFile(filepath.Join(root, "/sys/hypervisor/uuid")); err == nil && strings.HasPrefix(strings.ToLower(string(b)), "ec2") {
		facts["sys_vendor"] = "Amazon EC2"
	}
	return facts
}

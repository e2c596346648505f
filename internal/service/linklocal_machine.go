package service

import (
	"bufio"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// interfaceOf names the interface that has the address, "" for none.
func interfaceOf(a netip.Addr) (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", fail("", "cannot list the network interfaces: %w", err)
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went meanwhile
		}
		for _, b := range addrs {
			if n, ok := b.(*net.IPNet); ok {
				if have, ok := netip.AddrFromSlice(n.IP); ok && have.Unmap() == a {
					return i.Name, nil
				}
			}
		}
	}
	return "", nil
}

func isLoopback(name string) bool {
	i, err := net.InterfaceByName(name)
	return err == nil && i.Flags&net.FlagLoopback != 0
}

// holder is who listens at an address and port.
type holder struct {
	pid      int    // 0 where it can't be seen
	name     string // the program's
	wildcard bool   // it listens at every address
}

func (h holder) String() string {
	if h.pid == 0 {
		return "another program"
	}
	return h.name + " (pid " + strconv.Itoa(h.pid) + ")"
}

// holders are those who keep a from being bound, by proc(5): /proc/net/tcp
// and tcp6. Elsewhere than on Linux there are none, and the attempt to bind
// tells.
func holders(root string, a netip.Addr, port uint16) []holder {
	var found []holder
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(root, "/proc/net", name))
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text())
			if len(fields) < 10 || fields[3] != "0A" { // TCP_LISTEN
				continue
			}
			at, ok := procAddress(fields[1])
			if !ok || at.Port() != port {
				continue
			}
			here := at.Addr().Unmap() == a
			every := at.Addr().IsUnspecified() && (at.Addr().Is4() == a.Is4() || at.Addr().Is6())
			if here || every {
				h := holder{wildcard: every}
				h.pid, h.name = ownerOf(root, fields[9])
				found = append(found, h)
			}
		}
		_ = f.Close()
	}
	return found
}

// procAddress reads an address of /proc/net/tcp: words of four bytes in the
// machine's order, here always little endian, then the port.
func procAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	b, err2 := hex.DecodeString(host)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i+3 < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(p)), ok
}

// ownerOf is the process that holds the socket; the one with the largest id,
// because the service manager holds it too where it handed it over.
func ownerOf(root, inode string) (pid int, name string) {
	want := "socket:[" + inode + "]"
	all, err := os.ReadDir(filepath.Join(root, "/proc"))
	if err != nil {
		return 0, ""
	}
	for _, e := range all {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < pid {
			continue
		}
		dir := filepath.Join(root, "/proc", e.Name())
		fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && to == want {
				comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
				pid, name = n, strings.TrimSpace(string(comm))
				break
			}
		}
	}
	return pid, name
}

// hostRoute names the interface of a route to exactly this address, ""
// where there is none. A default route, or that of all link-local addresses,
// is not one.
func hostRoute(root string, a netip.Addr) string {
	if a.Is4() {
		f, err := os.Open(filepath.Join(root, "/proc/net/route"))
		if err != nil {
			return ""
		}
		defer func() { _ = f.Close() }()
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text()) // Iface Destination Gateway Flags RefCnt Use Metric Mask
			if len(fields) < 8 || fields[7] != "FFFFFFFF" {
				continue
			}
			if to, ok := procAddress(fields[1] + ":0"); ok && to.Addr() == a {
				return fields[0]
			}
		}
		return ""
	}
	f, err := os.Open(filepath.Join(root, "/proc/net/ipv6_route"))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	want := hex.EncodeToString(a.AsSlice())
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text()) // destination, its prefix length, …, device
		if len(fields) >= 10 && fields[0] == want && fields[1] == "80" && fields[9] != "lo" {
			return fields[9]
		}
	}
	return ""
}

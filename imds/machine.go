package imds

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// machineFresh is how long what was read of the machine is believed. A
// laptop changes its addresses with the network that it is in.
const machineFresh = 10 * time.Second

// machine is what the metadata tree tells of this machine where no setting
// says otherwise. What could not be found out is "".
type machine struct {
	id       string // stays the same over restarts
	hostname string
	ipv4     string
	ipv6     string
	mac      string // of the interface that has ipv4
}

// machines remembers the machine for a few seconds.
type machines struct {
	read func() machine // readMachine, or a test's

	mu   sync.Mutex // guards what follows
	last machine
	at   time.Time
}

func (m *machines) get() machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); m.at.IsZero() || now.Sub(m.at) > machineFresh || now.Before(m.at) {
		m.last, m.at = m.read(), now
	}
	return m.last
}

// readMachine asks the system.
func readMachine() machine {
	m := machine{id: machineID()}
	m.hostname, _ = os.Hostname()
	v4, v6 := outward("udp4", "192.0.2.1:9"), outward("udp6", "[2001:db8::1]:9")
	if v6.IsGlobalUnicast() {
		m.ipv6 = v6.String()
	}
	m.ipv4, m.mac = interfaceOf(v4)
	return m
}

// interfaceOf finds the interface that has an address, or the first with any
// that may be shown if there is no such. It looks no further than it must: a
// machine that runs containers has hundreds of interfaces behind its own, and
// to list the addresses of each takes the system long.
func interfaceOf(wanted netip.Addr) (ipv4, mac string) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", ""
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			network, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(network.IP)
			if ip = ip.Unmap(); !ok || !ip.Is4() || !ip.IsGlobalUnicast() {
				continue
			}
			if ip == wanted || !wanted.IsValid() {
				return ip.String(), i.HardwareAddr.String()
			}
		}
	}
	if wanted.Is4() && wanted.IsGlobalUnicast() {
		return wanted.String(), ""
	}
	return "", ""
}

// outward is the address that a packet to target would come from. Nothing is
// sent: connecting a UDP socket asks the routing table alone.
func outward(network, target string) netip.Addr {
	c, err := net.Dial(network, target)
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

package imds

import (
	"net"
	"net/netip"
	"os"
	"strings"
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
	interfaces, err := net.Interfaces()
	if err != nil {
		return m
	}
	// The address that leads out of the machine, else the first.
	v4, v6 := outward("udp4", "192.0.2.1:9"), outward("udp6", "[2001:db8::1]:9")
	found4, found6 := false, false
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
			ip = ip.Unmap()
			if !ok || !ip.IsGlobalUnicast() {
				continue
			}
			switch {
			case ip.Is4() && !found4 && (m.ipv4 == "" || ip == v4):
				m.ipv4, m.mac, found4 = ip.String(), i.HardwareAddr.String(), ip == v4
			case ip.Is6() && !found6 && (m.ipv6 == "" || ip == v6):
				m.ipv6, found6 = ip.String(), ip == v6
			}
		}
	}
	return m
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

// machineID is the id that systemd or D-Bus gave this installation
// (machine-id(5)), "" where there is none.
func machineID() string {
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(name); err == nil {
			if id := strings.TrimSpace(string(b)); len(id) == 32 {
				return id
			}
		}
	}
	return ""
}

package peer

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

var (
	client4 = netip.MustParseAddrPort("127.0.0.1:50001")
	server4 = netip.MustParseAddrPort("127.0.0.1:9911")
	client6 = netip.MustParseAddrPort("[::1]:50001")
	server6 = netip.MustParseAddrPort("[::1]:9911")
)

// pcb writes one socket as macOS lists it.
func pcb(local, remote netip.AddrPort, state, uid, pid uint32) []byte {
	le := binary.LittleEndian
	part := func(kind uint32, size int, fill func(s []byte)) []byte {
		s := make([]byte, (size+7)&^7)
		le.PutUint32(s, uint32(size))
		le.PutUint32(s[4:], kind)
		fill(s)
		return s
	}
	b := part(pcbInpcb, 104, func(s []byte) {
		binary.BigEndian.PutUint16(s[16:], remote.Port())
		binary.BigEndian.PutUint16(s[18:], local.Port())
		if local.Addr().Is4() {
			s[44] = 1
			copy(s[60:64], remote.Addr().AsSlice())
			copy(s[76:80], local.Addr().AsSlice())
		} else {
			s[44] = 2
			copy(s[48:64], remote.Addr().AsSlice())
			copy(s[64:80], local.Addr().AsSlice())
		}
	})
	b = append(b, part(pcbSocket, 76, func(s []byte) { le.PutUint32(s[64:], uid); le.PutUint32(s[68:], pid) })...)
	b = append(b, part(0x002, 32, func([]byte) {})...)
	b = append(b, part(0x004, 36, func([]byte) {})...)
	b = append(b, part(0x008, 132, func([]byte) {})...)
	return append(b, part(pcbTCP, 204, func(s []byte) { le.PutUint32(s[36:], state) })...)
}

func pcbList(sockets ...[]byte) []byte {
	gen := make([]byte, 24)
	binary.LittleEndian.PutUint32(gen, 24)
	b := append([]byte(nil), gen...)
	for _, s := range sockets {
		b = append(b, s...)
	}
	return append(b, gen...)
}

func TestFindPCB(t *testing.T) {
	const established, listen, timeWait = 4, 1, 10
	anywhere := netip.MustParseAddrPort("0.0.0.0:0")
	others := [][]byte{
		pcb(server4, anywhere, listen, 0, 1),
		pcb(server4, client4, established, 0, 1), // the daemon's own side
		pcb(netip.MustParseAddrPort("127.0.0.1:50002"), server4, established, 0, 7),
	}
	for _, test := range []struct {
		name          string
		local, remote netip.AddrPort
		sockets       [][]byte
		want          pcbOwner
		ok            bool
	}{
		{"IPv4", client4, server4, [][]byte{pcb(client4, server4, established, 501, 42)}, pcbOwner{501, 42}, true},
		{"IPv6", client6, server6, [][]byte{pcb(client6, server6, established, 501, 42)}, pcbOwner{501, 42}, true},
		{"half closed", client4, server4, [][]byte{pcb(client4, server4, 9, 501, 42)}, pcbOwner{501, 42}, true},
		{"gone", client4, server4, nil, pcbOwner{}, false},
		{"time-wait", client4, server4, [][]byte{pcb(client4, server4, timeWait, 501, 42)}, pcbOwner{}, false},
		{"listens", client4, server4, [][]byte{pcb(client4, anywhere, listen, 501, 42)}, pcbOwner{}, false},
		{"no process", client4, server4, [][]byte{pcb(client4, server4, established, 501, 0)}, pcbOwner{}, false},
		{"state out of range", client4, server4, [][]byte{pcb(client4, server4, 4+32, 501, 42)}, pcbOwner{}, false},
		{"twice", client4, server4, [][]byte{pcb(client4, server4, established, 501, 42), pcb(client4, server4, established, 502, 43)}, pcbOwner{}, false},
		{"other family", client4, server4, [][]byte{pcb(client6, server6, established, 501, 42)}, pcbOwner{}, false},
	} {
		list := pcbList(append(append([][]byte(nil), others...), test.sockets...)...)
		if got, ok := findPCB(list, test.local, test.remote); ok != test.ok || ok && got != test.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", test.name, got, ok, test.want, test.ok)
		}
	}
	// The owner is read from the same group as the addresses, not from the next.
	whole := pcb(client4, server4, established, 501, 42)
	addressesOnly := whole[:104]
	if got, ok := findPCB(pcbList(addressesOnly, pcb(client6, server6, established, 0, 1)), client4, server4); ok {
		t.Errorf("took another socket's owner: %+v", got)
	}
	// Damage is never a crash, and never makes another user of it.
	good := pcbList(whole)
	for i := range len(good) {
		if got, ok := findPCB(good[:i], client4, server4); ok && got != (pcbOwner{501, 42}) {
			t.Errorf("cut at %d: %+v", i, got)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		bad := append([]byte(nil), good...)
		for range 1 + r.IntN(4) {
			bad[r.IntN(len(bad))] = byte(r.Uint32())
		}
		findPCB(bad, client4, server4)
	}
}

func tcpRow(local, remote netip.AddrPort, state, pid uint32) []byte {
	le := binary.LittleEndian
	if local.Addr().Is4() {
		b := make([]byte, tcpRowSize)
		le.PutUint32(b, state)
		copy(b[4:8], local.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[8:], local.Port())
		copy(b[12:16], remote.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[16:], remote.Port())
		le.PutUint32(b[20:], pid)
		return b
	}
	b := make([]byte, tcp6RowSize)
	copy(b[0:16], local.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], local.Port())
	copy(b[24:40], remote.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[44:], remote.Port())
	le.PutUint32(b[48:], state)
	le.PutUint32(b[52:], pid)
	return b
}

func TestFindTCPRow(t *testing.T) {
	const established, listen, timeWait = 5, 2, 11
	table := func(rows ...[]byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(rows)))
		for _, r := range rows {
			b = append(b, r...)
		}
		return append(b, make([]byte, 100)...) // what is left of the buffer
	}
	mapped := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	anywhere := netip.MustParseAddrPort("0.0.0.0:0")
	for _, test := range []struct {
		name          string
		v6            bool
		local, remote netip.AddrPort
		rows          [][]byte
		pid           uint32
	}{
		{"IPv4", false, client4, server4, [][]byte{tcpRow(server4, client4, established, 1), tcpRow(client4, server4, established, 42)}, 42},
		{"IPv6", true, client6, server6, [][]byte{tcpRow(server6, client6, established, 1), tcpRow(client6, server6, established, 42)}, 42},
		{"mapped", true, client4, server4, [][]byte{tcpRow(mapped(client4), mapped(server4), established, 42)}, 42},
		{"gone", false, client4, server4, [][]byte{tcpRow(server4, client4, established, 1)}, 0},
		{"time-wait", false, client4, server4, [][]byte{tcpRow(client4, server4, timeWait, 42)}, 0},
		{"listens", false, client4, server4, [][]byte{tcpRow(client4, anywhere, listen, 42)}, 0},
		{"no process", false, client4, server4, [][]byte{tcpRow(client4, server4, established, 0)}, 0},
		{"twice", false, client4, server4, [][]byte{tcpRow(client4, server4, established, 42), tcpRow(client4, server4, established, 43)}, 0},
	} {
		pid, ok := findTCPRow(table(test.rows...), test.v6, test.local, test.remote)
		if ok != (test.pid != 0) || ok && pid != test.pid {
			t.Errorf("%s: %d, %v; want %d", test.name, pid, ok, test.pid)
		}
	}
	// The link-local scope of an IPv6 row is no part of the address.
	scoped := tcpRow(client6, server6, established, 42)
	scoped[16], scoped[40] = 7, 7
	if pid, ok := findTCPRow(table(scoped), true, client6, server6); !ok || pid != 42 {
		t.Errorf("with a scope: %d, %v", pid, ok)
	}
	// Damage is never a crash.
	r := rand.New(rand.NewPCG(1, 2))
	for _, v6 := range []bool{false, true} {
		good := table(tcpRow(client4, server4, established, 42), tcpRow(client4, server4, established, 43))
		for range 20000 {
			bad := append([]byte(nil), good[:r.IntN(len(good)+1)]...)
			if len(bad) > 0 {
				bad[r.IntN(len(bad))] = byte(r.Uint32())
			}
			findTCPRow(bad, v6, client4, server4)
		}
	}
	for _, bad := range [][]byte{nil, {1, 0}, {1, 0, 0, 0}, {255, 255, 255, 255, 1, 2, 3}} {
		if pid, ok := findTCPRow(bad, false, client4, server4); ok {
			t.Errorf("%v: %d", bad, pid)
		}
	}
}

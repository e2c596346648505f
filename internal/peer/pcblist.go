package peer

import (
	"encoding/binary"
	"net/netip"
)

// The sysctl net.inet.tcp.pcblist_n of macOS (XNU: bsd/netinet/in_pcblist.c,
// in_pcb.h, tcp_var.h, bsd/sys/socketvar.h): after a header, for each TCP
// socket a group of structures, each of which starts with its length and its
// kind and is padded to 8 bytes. The group starts with its xinpcb_n. The
// structures are packed to 4 bytes.
const (
	pcbSocket = 0x001 // xsocket_n
	pcbInpcb  = 0x010 // xinpcb_n
	pcbTCP    = 0x020 // xtcpcb_n

	// xinpcb_n
	pcbRemotePort = 16 // big endian
	pcbLocalPort  = 18
	pcbVflag      = 44 // 1 is IPv4, 2 is IPv6
	pcbRemoteAddr = 48 // 16 bytes; an IPv4 address in the last 4
	pcbLocalAddr  = 64
	pcbInpcbSize  = 80
	// xsocket_n
	pcbUID        = 64
	pcbPID        = 68
	pcbSocketSize = 72
	// xtcpcb_n
	pcbState   = 36
	pcbTCPSize = 40
)

// States of tcp_fsm.h in which a socket still belongs to the process that
// connected: ESTABLISHED, CLOSE_WAIT, FIN_WAIT_1, CLOSING, LAST_ACK,
// FIN_WAIT_2.
const pcbOwnedStates = 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9

// pcbOwner is who holds a socket.
type pcbOwner struct {
	uid uint32
	pid int // that last used it
}

// findPCB looks for the one socket with this local and remote address. Of
// anything that it does not understand it says that there is none.
func findPCB(b []byte, local, remote netip.AddrPort) (owner pcbOwner, ok bool) {
	if len(b) < 8 {
		return pcbOwner{}, false
	}
	found := 0
	var ours, haveUser, haveState bool // of the group that is read
	var group pcbOwner
	finish := func() {
		if ours && haveUser && haveState {
			owner = group
			found++
		}
		ours, haveUser, haveState = false, false, false
	}
	for b = skip(b, binary.LittleEndian.Uint32(b)); len(b) >= 8; {
		size, kind := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		if size < 8 || uint64(size) > uint64(len(b)) {
			return pcbOwner{}, false
		}
		s := b[:size]
		switch kind {
		case pcbInpcb:
			finish()
			ours = len(s) >= pcbInpcbSize && pcbMatches(s, local, remote)
		case pcbSocket:
			if len(s) >= pcbSocketSize {
				group = pcbOwner{uid: binary.LittleEndian.Uint32(s[pcbUID:]), pid: int(int32(binary.LittleEndian.Uint32(s[pcbPID:])))}
				haveUser = group.pid > 0
			}
		case pcbTCP:
			if len(s) >= pcbTCPSize {
				state := binary.LittleEndian.Uint32(s[pcbState:])
				haveState = state < 32 && pcbOwnedStates&(1<<state) != 0
			}
		}
		b = skip(b, size)
	}
	finish()
	return owner, found == 1
}

// skip drops a structure and its padding to 8 bytes.
func skip(b []byte, size uint32) []byte {
	n := (uint64(size) + 7) &^ 7
	return b[min(n, uint64(len(b))):]
}

func pcbMatches(s []byte, local, remote netip.AddrPort) bool {
	addr := func(at int) netip.Addr {
		if s[pcbVflag]&1 != 0 {
			return netip.AddrFrom4([4]byte(s[at+12 : at+16]))
		}
		return netip.AddrFrom16([16]byte(s[at : at+16])).Unmap()
	}
	return binary.BigEndian.Uint16(s[pcbLocalPort:]) == local.Port() &&
		binary.BigEndian.Uint16(s[pcbRemotePort:]) == remote.Port() &&
		addr(pcbLocalAddr) == local.Addr() && addr(pcbRemoteAddr) == remote.Addr()
}

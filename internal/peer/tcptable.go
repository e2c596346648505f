package peer

import (
	"encoding/binary"
	"net/netip"
)

// The tables of Windows' GetExtendedTcpTable with TCP_TABLE_OWNER_PID_ALL
// (tcpmib.h): a count, then rows. MIB_TCPROW_OWNER_PID is state, local
// address, local port, remote address, remote port, pid; MIB_TCP6ROW_OWNER_PID
// is local address (16), scope, port, remote address (16), scope, port,
// state, pid. All are 4 bytes but where told, ports in the first two of
// theirs in network order.
const (
	tcpRowSize  = 24
	tcp6RowSize = 56
)

// States of MIB_TCP_STATE in which a socket still belongs to the process
// that connected: ESTAB, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, CLOSING, LAST_ACK.
const tcpOwnedStates = 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9 | 1<<10

// findTCPRow returns the process that owns the one connection with this
// local and remote address, both IPv4, or both IPv6 for the v6 table. An
// IPv4 connection of an IPv6 socket stands in the v6 table with mapped
// addresses.
func findTCPRow(b []byte, v6 bool, local, remote netip.AddrPort) (pid uint32, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	count := uint64(binary.LittleEndian.Uint32(b))
	b = b[4:]
	size := uint64(tcpRowSize)
	if v6 {
		size = tcp6RowSize
	}
	if count*size > uint64(len(b)) {
		return 0, false
	}
	found := 0
	for ; count > 0; count-- {
		row := b[:size]
		b = b[size:]
		var l, r netip.AddrPort
		var state uint32
		if v6 {
			l = netip.AddrPortFrom(netip.AddrFrom16([16]byte(row[0:16])).Unmap(), binary.BigEndian.Uint16(row[20:]))
			r = netip.AddrPortFrom(netip.AddrFrom16([16]byte(row[24:40])).Unmap(), binary.BigEndian.Uint16(row[44:]))
			state = binary.LittleEndian.Uint32(row[48:])
		} else {
			state = binary.LittleEndian.Uint32(row[0:])
			l = netip.AddrPortFrom(netip.AddrFrom4([4]byte(row[4:8])), binary.BigEndian.Uint16(row[8:]))
			r = netip.AddrPortFrom(netip.AddrFrom4([4]byte(row[12:16])), binary.BigEndian.Uint16(row[16:]))
		}
		if l == local && r == remote && state < 32 && tcpOwnedStates&(1<<state) != 0 {
			pid = binary.LittleEndian.Uint32(row[size-4:])
			found++
		}
	}
	return pid, found == 1 && pid != 0
}

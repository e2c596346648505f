//go:build linux || darwin

package control

import "syscall"

// tryRead reads what is there without waiting; ok is false if nothing is, or
// the connection can't tell. n == 0 with ok is the end.
func tryRead(c Conn, b []byte) (n int, ok bool) {
	raw := rawOf(c)
	if raw == nil {
		return 0, false
	}
	var err error
	if raw.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), b)
		return true
	}) != nil || err != nil {
		return 0, false
	}
	return n, true
}

// tryWrite writes as much as there is room for without waiting.
func tryWrite(c Conn, b []byte) (n int) {
	raw := rawOf(c)
	if raw == nil {
		return 0
	}
	var err error
	if raw.Write(func(fd uintptr) bool {
		n, err = syscall.Write(int(fd), b)
		return true
	}) != nil || err != nil {
		return 0
	}
	return n
}

func rawOf(c Conn) syscall.RawConn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

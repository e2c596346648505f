package hot

import (
	"runtime"
	"syscall"
	"unsafe"
)

// replyWait is how long the daemon is waited for, in seconds: a little more
// than it takes, and less than the minute of the SDKs.
const replyWait = 59

// maxSpins bounds how often the answer is looked for before it is waited for:
// about a tenth of a millisecond.
const maxSpins = 200

// Ask asks the daemon that runs for the credentials that args (without the
// program's name) name, if they are `credential-process` with no other flags
// than a config file has, and if no settings file has to be read. It never
// lets the daemon ask a person: who needs one learns it from the Reply.
func Ask(args, env []string) Answer {
	request, socket, ok := Prepare(args, env)
	if !ok {
		return Answer{}
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Answer{}
	}
	limit := syscall.Timeval{Sec: replyWait}
	if syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit) != nil || // also connect's
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit) != nil ||
		syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}) != nil {
		_ = syscall.Close(fd)
		return Answer{}
	}
	// As package control does: the server is our own user or root. It knows
	// one more, which then has its turn.
	server, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil || server.Uid != 0 && int(server.Uid) != syscall.Geteuid() {
		_ = syscall.Close(fd)
		return Answer{}
	}
	a := converse(fd, request)
	a.PID = int(server.Pid)
	a.close = func() { _ = syscall.Close(fd) }
	if a.Document == nil {
		a.Close()
	}
	return a
}

// converse sends the request and reads the two lines of the answer.
func converse(fd int, request []byte) Answer {
	a := Answer{Asked: true}
	if _, err := syscall.Write(fd, request); err != nil {
		return a
	}
	lines := make([]byte, 0, 8<<10)
	for spins := 0; ; {
		if len(lines) == cap(lines) {
			if len(lines) > 1<<20 {
				return a
			}
			lines = append(make([]byte, 0, 4*cap(lines)), lines...)
		}
		// The answer of a warm daemon is there sooner than a sleeping
		// processor wakes up.
		flags := 0
		if spins < maxSpins && runtime.NumCPU() > 1 {
			flags = syscall.MSG_DONTWAIT
		}
		n, errno := receive(fd, lines[len(lines):cap(lines)], flags)
		switch {
		case errno == syscall.EAGAIN && flags != 0:
			spins++
			continue
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			a.TimedOut = true
			return a
		case errno != 0 || n == 0:
			return a
		}
		lines = lines[:len(lines)+n]
		first := index(lines, '\n')
		if first < 0 {
			continue
		}
		if second := index(lines[first+1:], '\n'); second >= 0 {
			a.Hello, a.Reply = lines[:first], lines[first+1:first+1+second]
			a.Document = document(a.Hello, a.Reply)
			return a
		}
	}
}

// receive does not tell Go's scheduler that it waits: nothing else runs, and
// handing this thread's processor on and getting one back takes longer than
// the answer.
func receive(fd int, b []byte, flags int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(flags), 0, 0)
	return int(n), errno
}

// document takes the document out of a reply that holds one.
func document(hello, reply []byte) []byte {
	const before, after = `{"id":1,"result":`, `}`
	const begin = `{"Version":1,"AccessKeyId":"`
	if !hasPrefix(hello, `{"keyfob":1,`) || !hasPrefix(reply, before+begin) || !hasSuffix(reply, `"}`+after) {
		return nil
	}
	d := reply[len(before) : len(reply)-len(after)]
	if !isObject(d) {
		return nil
	}
	return d
}

// isObject reports whether b, which begins with a brace, ends with the one
// that closes it: a later daemon may say more behind its result.
func isObject(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i == len(b)-1
			}
		}
	}
	return false
}

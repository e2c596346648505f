package early

import (
	"syscall"

	"keyfob/internal/hot"
)

func init() {
	args := arguments()
	if len(args) < 2 || args[1] != "credential-process" {
		return
	}
	Answer = hot.Ask(args[1:], syscall.Environ())
	if Answer.Document == nil || hot.DaemonVersion(Answer.Hello) != Version {
		return
	}
	line := append(Answer.Document[:len(Answer.Document):len(Answer.Document)], '\n')
	for len(line) > 0 {
		n, err := syscall.Write(1, line)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			syscall.Exit(1) // nobody reads; SIGPIPE, where it was that, has ended us before
		}
		line = line[n:]
	}
	syscall.Exit(0)
}

// arguments reads our arguments, which package os does not know yet.
func arguments() []string {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = syscall.Close(fd) }()
	b := make([]byte, 4<<10)
	n, err := syscall.Read(fd, b)
	if err != nil || n <= 0 || n == len(b) || b[n-1] != 0 {
		return nil
	}
	var args []string
	for begin, i := 0, 0; i < n; i++ {
		if b[i] == 0 {
			args = append(args, string(b[begin:i]))
			begin = i + 1
		}
	}
	return args
}

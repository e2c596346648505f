//go:build !windows

package daemon

import (
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// follow makes the new log file our standard error and output, where the
// runtime writes what a panic has to say.
func follow(f *os.File) {
	_ = unix.Dup2(int(f.Fd()), 1)
	_ = unix.Dup2(int(f.Fd()), 2)
}

// serviceLog is where a service writes its log: to standard error, which
// every service manager here keeps.
type serviceLog struct{ io.Writer }

func openServiceLog(stderr io.Writer, _ bool) (*serviceLog, error) { return &serviceLog{stderr}, nil }

func (*serviceLog) attach(*logrus.Logger) {}

func (*serviceLog) failed(error) {}

func (*serviceLog) close() {}

package daemon

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/windows"

	"keyfob/internal/logging"
	"keyfob/internal/service"
)

// follow has nothing to do: the log stays one file, which is copied and
// emptied when it has grown.
func follow(*os.File) {}

// serviceLog is where a service writes its log: Windows keeps nothing of
// what it writes to standard error. That is a file (service.WindowsLog), and
// for warnings, errors, start and end the Application log too.
type serviceLog struct {
	io.Writer
	file   *logging.Rotating // nil where it could not be opened
	errors *os.File          // the same file, for what a panic has to say
	events *logging.EventLog // nil where there is none
}

// openServiceLog opens the log of this machine's daemon (machine) or of the
// person's. What it returns can be used and is to be closed also after an
// error, which says why there is no file; the Application log has room for
// what failed then.
func openServiceLog(_ io.Writer, machine bool) (*serviceLog, error) {
	l := &serviceLog{Writer: io.Discard}
	l.events, _ = logging.OpenEventLog(readyMessage, endedMessage)
	path := service.WindowsLog(machine, os.Getenv)
	if !filepath.IsAbs(path) {
		return l, fmt.Errorf("cannot open the log: %s is no absolute path", path)
	}
	if err := makePrivate(filepath.Dir(path), machine); err != nil {
		return l, err
	}
	var err error
	if l.file, err = logging.OpenRotating(path, 0, 0, follow); err != nil {
		return l, err
	}
	l.Writer = l.file
	// The runtime asks for the handle anew whenever it writes.
	if l.errors, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
		_ = windows.SetStdHandle(windows.STD_ERROR_HANDLE, windows.Handle(l.errors.Fd()))
	}
	return l, nil
}

// attach sends what matters of the log to the Application log too.
func (l *serviceLog) attach(log *logrus.Logger) {
	if l.events != nil {
		log.AddHook(l.events)
	}
}

// failed notes why the daemon did not start or had to end; nil is nothing.
func (l *serviceLog) failed(err error) {
	if err == nil {
		return
	}
	text := "keyfobd: " + oneLine(err) + "\n" + hintLine(err)
	fmt.Fprint(l, text)
	if l.events != nil {
		l.events.Failed(text)
	}
}

// close closes what was opened. The handle for panics stays: it is still
// standard error.
func (l *serviceLog) close() {
	if l.file != nil {
		_ = l.file.Close()
	}
	if l.events != nil {
		_ = l.events.Close()
	}
}

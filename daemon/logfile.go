package daemon

import (
	"io"
	"os"
	"path/filepath"

	"keyfob/internal/logging"
)

// logName is the log of a daemon on demand, in the data directory: whoever
// started it opened the file as our standard error.
const logName = "keyfobd.log"

// What the log says of a daemon's life: Windows keeps these two among its own
// events.
const (
	readyMessage = "keyfobd is ready"
	endedMessage = "keyfobd ended"
)

// logFile is stderr, or where that is the log file of a daemon on demand, the
// same file, put aside when it has grown. close frees it.
func logFile(stderr io.Writer, dataDir string) (w io.Writer, close func()) {
	keep := func() (io.Writer, func()) { return stderr, func() {} }
	f, ok := stderr.(*os.File)
	if !ok {
		return keep()
	}
	path := filepath.Join(dataDir, logName)
	named, err := os.Stat(path)
	if err != nil {
		return keep()
	}
	if mine, err := f.Stat(); err != nil || !os.SameFile(mine, named) {
		return keep()
	}
	l, err := logging.OpenRotating(path, 0, 0, follow)
	if err != nil {
		return keep()
	}
	return l, func() { _ = l.Close() }
}

package logging

import (
	"bytes"
	"os"
	"strconv"

	"github.com/sirupsen/logrus"
)

// ForJournal makes each line of l begin with its priority, as journald takes
// it from what a service writes to standard error (sd-daemon(3)).
func ForJournal(f logrus.Formatter) logrus.Formatter { return &journaled{f} }

type journaled struct{ logrus.Formatter }

// Format puts the priority before the line. One that had line feeds would be
// several messages, so each of them gets it.
func (j *journaled) Format(e *logrus.Entry) ([]byte, error) {
	b, err := j.Formatter.Format(e)
	if err != nil {
		return nil, err
	}
	prefix := []byte("<" + strconv.Itoa(priority(e.Level)) + ">")
	lines := bytes.SplitAfter(b, []byte("\n"))
	out := make([]byte, 0, len(b)+len(prefix)*len(lines))
	for _, line := range lines {
		if len(line) > 0 {
			out = append(append(out, prefix...), line...)
		}
	}
	return out, nil
}

// priority is syslog's.
func priority(level logrus.Level) int {
	switch level {
	case logrus.PanicLevel, logrus.FatalLevel:
		return 2
	case logrus.ErrorLevel:
		return 3
	case logrus.WarnLevel:
		return 4
	case logrus.InfoLevel:
		return 6
	}
	return 7
}

// Journaled reports whether f is journald's stream, as the variable
// JOURNAL_STREAM (device:inode, systemd.exec(5)) says. A service may have
// passed the variable on to something whose standard error goes elsewhere.
func Journaled(f *os.File, variable string) bool {
	id, ok := deviceInode(f)
	return ok && variable != "" && id == variable
}

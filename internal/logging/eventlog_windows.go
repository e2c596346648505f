package logging

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/windows/svc/eventlog"
)

// EventSource is keyfob's name in the Application log of Windows. Its
// registration, by the installation of the service, tells Event Viewer that
// EventCreate.exe has the texts; without it the lines are there all the same,
// below a remark.
const EventSource = "keyfob"

// The ids of events; EventCreate.exe knows 1 to 1000, each as "%1".
const (
	eventInfo    = 1
	eventWarning = 2
	eventError   = 3
)

const (
	// eventLongest is less than what ReportEvent takes, 31,839 characters.
	eventLongest = 30000
	// eventsMost bounds the events of a minute: the Application log is all
	// programs', and who is refused often enough could fill it.
	eventsMost = 30
)

// EventLog is a hook (logrus.Hook) that writes the log's warnings and errors
// to the Application log of Windows too, as the same redacted lines.
type EventLog struct {
	to   eventWriter
	also []string

	mu    sync.Mutex // guards what follows
	since time.Time  // begin of the minute that is counted
	count int
}

// eventWriter is eventlog.Log's part that is used.
type eventWriter interface {
	Info(id uint32, text string) error
	Warning(id uint32, text string) error
	Error(id uint32, text string) error
	Close() error
}

// OpenEventLog opens the Application log under the name EventSource. also are
// messages that go there too although they only inform. Close it at the end.
func OpenEventLog(also ...string) (*EventLog, error) {
	to, err := eventlog.Open(EventSource)
	if err != nil {
		return nil, err
	}
	return &EventLog{to: to, also: also}, nil
}

// Close closes the log.
func (l *EventLog) Close() error { return l.to.Close() }

// Levels is logrus.Hook's.
func (l *EventLog) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel, logrus.InfoLevel}
}

// Fire is logrus.Hook's. It never fails: the line is in the file anyway.
func (l *EventLog) Fire(e *logrus.Entry) error {
	if e.Level == logrus.InfoLevel && !slices.Contains(l.also, e.Message) {
		return nil
	}
	line, err := e.Logger.Formatter.Format(e)
	if err != nil {
		return nil
	}
	l.write(e.Level, string(line))
	return nil
}

// Failed writes an error that kept the daemon from having a log.
func (l *EventLog) Failed(text string) { l.write(logrus.ErrorLevel, string(redact([]byte(text)))) }

func (l *EventLog) write(level logrus.Level, text string) {
	room, last := l.room(time.Now())
	if !room {
		return
	}
	text = eventText(text)
	switch level {
	case logrus.InfoLevel:
		_ = l.to.Info(eventInfo, text)
	case logrus.WarnLevel:
		_ = l.to.Warning(eventWarning, text)
	default:
		_ = l.to.Error(eventError, text)
	}
	if last {
		_ = l.to.Warning(eventWarning, "more of this minute stands in the log file alone (keyfob service logs)")
	}
}

// room reports whether one more event may be written, and whether it is the
// last one of its minute.
func (l *EventLog) room(now time.Time) (room, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= time.Minute || now.Before(l.since) {
		l.since, l.count = now, 0
	}
	l.count++
	return l.count <= eventsMost, l.count == eventsMost
}

// insertion is what Event Viewer would put another text in place of
// (ReportEvent's documentation): IPv6 zones and escaped URLs have it.
var insertion = regexp.MustCompile(`%([0-9])`)

func eventText(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\x00", "")
	text = insertion.ReplaceAllString(text, "% $1")
	if len(text) > eventLongest {
		cut := eventLongest
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	return text
}

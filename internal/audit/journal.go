package audit

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// JournalSocket is where journald takes messages in its native protocol
// (systemd.journal-fields(7), https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
const JournalSocket = "/run/systemd/journal/socket"

// journalID marks the lines in the journal: journalctl MESSAGE_ID=…
const journalID = "5d4b6a3e0f1c4c5e9f6e2b7a8c9d0e1f"

type journalSink struct {
	path string
	conn *net.UnixConn
}

// NewJournal returns a Sink to journald at the socket. It opens nothing.
func NewJournal(socket string) Sink { return &journalSink{path: socket} }

// Kind is journal.
func (j *journalSink) Kind() string { return "journal" }

// Close closes the socket.
func (j *journalSink) Close() {
	if j.conn != nil {
		_ = j.conn.Close()
		j.conn = nil
	}
}

// Send delivers each line as one entry.
func (j *journalSink) Send(ctx context.Context, lines []Line) (sent, rejected int, err error) {
	for sent < len(lines) {
		if j.conn == nil {
			if j.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: j.path, Net: "unixgram"}); err != nil {
				j.conn = nil
				return sent, 0, fmt.Errorf("cannot send to journald: %w", err)
			}
		}
		deadline, ok := ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(sendLimit)
		}
		if err = j.conn.SetWriteDeadline(deadline); err == nil {
			_, err = j.conn.Write(journalEntry(lines[sent]))
		}
		if err != nil {
			j.Close()
			return sent, 0, fmt.Errorf("cannot send to journald: %w", err)
		}
		sent++
	}
	return sent, 0, nil
}

func journalEntry(l Line) []byte {
	var b []byte
	for _, f := range [][2]string{
		{"MESSAGE", l.JSON}, {"PRIORITY", strconv.Itoa(severity(l.Event))}, {"SYSLOG_FACILITY", strconv.Itoa(facility)},
		{"SYSLOG_IDENTIFIER", appName}, {"MESSAGE_ID", journalID}, {"KEYFOB_EVENT", l.Event},
	} {
		name, value := f[0], f[1]
		if !strings.Contains(value, "\n") {
			b = append(b, name+"="+value+"\n"...)
			continue
		}
		b = append(b, name+"\n"...)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
		b = append(b, value+"\n"...)
	}
	return b
}

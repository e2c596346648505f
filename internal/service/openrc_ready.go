package service

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const (
	readyTime  = 15 * time.Second // that a daemon may take to answer
	answerTime = time.Second      // that one answer may take
	readyPause = 50 * time.Millisecond
)

func (o *openrc) socket() string { return o.c.at("/run/keyfob/keyfob.sock") }

// answering asks who answers at a control socket, by the first line of the
// protocol, which a daemon writes as soon as all of its listeners accept. The
// package of that protocol is not for here: this one imports settings alone.
func answering(ctx context.Context, socket string) (pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, `{"keyfob":1}`+"\n"+`{"id":1,"method":"version","params":{}}`+"\n"); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(io.LimitReader(c, 4096)).ReadBytes('\n')
	if err != nil {
		return 0, err
	}
	var hello struct{ Keyfob, PID int }
	if err := json.Unmarshal(line, &hello); err != nil || hello.Keyfob == 0 || hello.PID == 0 {
		return 0, fmt.Errorf("%s is not keyfobd's", socket)
	}
	return hello.PID, nil
}

// awaitReady waits until the daemon answers. What it complains of in its log,
// from there on, is why it does not.
func (o *openrc) awaitReady(ctx context.Context, log string, from int64) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		if _, err := answering(ctx, o.socket()); err == nil {
			return nil
		}
		if what, hint := complaint(log, from); what != "" {
			return fail(hint, "cannot start the service: the daemon does not start: %s", what)
		}
		select {
		case <-ctx.Done():
			return fail("keyfob service logs --system tells why", "cannot start the service: the daemon does not answer")
		case <-time.After(readyPause):
		}
	}
}

// complaint is the line with which keyfobd ended, in its log from a place on,
// and its hint.
func complaint(log string, from int64) (what, hint string) {
	f, err := os.Open(log)
	if err != nil {
		return "", ""
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || st.Size() < from {
		from = 0 // another file
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return "", ""
	}
	hint = "keyfob service logs --system tells more"
	for s := bufio.NewScanner(f); s.Scan(); {
		if said, ok := strings.CutPrefix(s.Text(), "keyfobd: "); ok && what == "" {
			what = said
		} else if said, ok := strings.CutPrefix(s.Text(), "hint: "); ok && what != "" {
			return what, said
		}
	}
	return what, hint
}

// runsOther reports whether the daemon that answers is not the program that
// stands at its path: it was replaced since.
func (o *openrc) runsOther(ctx context.Context) bool {
	pid, err := answering(ctx, o.socket())
	if err != nil {
		return false
	}
	exe, err := os.Readlink(o.c.at(fmt.Sprintf("/proc/%d/exe", pid)))
	return err == nil && exe != o.c.Program
}

// openrcError is what OpenRC says of a failure when it is quiet, without its
// own summary; "" for nothing.
func openrcError(out string) string {
	why := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "*"))
		said, isError := strings.CutPrefix(line, "ERROR: ")
		switch {
		case line == "" || strings.HasPrefix(line, "[ ") || strings.HasPrefix(line, "Caching service dependencies"):
		case why == "" || isError && !strings.HasSuffix(said, "failed to start"):
			why = said
		}
	}
	return why
}

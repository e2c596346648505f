package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells the service manager how the daemon is (sd_notify(3)).
// Where none listens its methods do nothing, and a nil Notifier is such a
// one. It is safe for concurrent use.
type Notifier struct {
	socket   string        // "" where nobody listens
	watchdog time.Duration // 0 where nobody watches
}

// notifyTime is what a message to the manager may take.
const notifyTime = 2 * time.Second

// NewNotifier takes the service manager's variables out of the environment,
// so that no program that the daemon runs speaks in its name. It opens
// nothing.
func NewNotifier() *Notifier {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	if every, err := daemon.SdWatchdogEnabled(true); err == nil {
		n.watchdog = every
	}
	_ = os.Unsetenv("NOTIFY_SOCKET")
	return n
}

// Listening reports whether a service manager wants to be told.
func (n *Notifier) Listening() bool { return n != nil && n.socket != "" }

func (n *Notifier) send(lines ...string) error {
	if !n.Listening() {
		return nil
	}
	// A fresh socket a message, as sd_notify(3) does it: the manager may have
	// been replaced since.
	d := net.Dialer{Timeout: notifyTime}
	c, err := d.Dial("unixgram", n.socket)
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(notifyTime))
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	return nil
}

// statusLine keeps text one line, so that it can't be another message.
func statusLine(text string) string {
	return "STATUS=" + strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' }), " ")
}

// Ready says that every listener accepts, also after a reload, with a line
// for people. Errors: the manager can't be reached.
func (n *Notifier) Ready(text string) error { return n.send(daemon.SdNotifyReady, statusLine(text)) }

// Status gives people a line.
func (n *Notifier) Status(text string) error { return n.send(statusLine(text)) }

// Stopping says that the daemon is about to end.
func (n *Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping, statusLine("ending")) }

// Reloading says that the settings are being read again; Ready says that
// this is over. It carries the time (CLOCK_MONOTONIC), by which a manager
// tells this reload from one before.
func (n *Notifier) Reloading() error {
	return n.send(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", monotonicMicros()))
}

// Watch beats at half of the watchdog's interval, for as long as healthy
// returns nil, until ctx ends; where nobody watches it only waits. healthy has
// half an interval: one that hangs is no beat, and the manager restarts the
// daemon. It returns nil.
func (n *Notifier) Watch(ctx context.Context, healthy func(context.Context) error) error {
	if !n.Listening() || n.watchdog <= 0 {
		<-ctx.Done()
		return nil
	}
	half := n.watchdog / 2
	tick := time.NewTicker(half)
	defer tick.Stop()
	sick := false
	for {
		err := func() error {
			hctx, cancel := context.WithTimeout(ctx, half)
			defer cancel()
			return healthy(hctx)
		}()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			sick = true
			_ = n.Status("not healthy: " + err.Error())
		case sick:
			sick = false
			_ = n.send(daemon.SdNotifyWatchdog, statusLine("healthy again"))
		default:
			_ = n.send(daemon.SdNotifyWatchdog) // the next beat tries again
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

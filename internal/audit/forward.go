package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/logging"
)

// Line is one line of the log on its way to a collector.
type Line struct {
	Time  time.Time
	Event string // handout, refusal, …
	JSON  string // the line as it stands in the file, in ASCII
}

// Sink takes lines to one collector. One goroutine at a time uses it.
type Sink interface {
	// Kind is its word in metrics and warnings: journal, syslog, otlp.
	Kind() string
	// Send delivers lines, in their order. sent counts those from the first
	// that need not be sent again; rejected of them are lost, because the
	// collector does not want them. An error is about the rest, which is
	// tried later.
	Send(ctx context.Context, lines []Line) (sent, rejected int, err error)
	Close()
}

// What a Forwarder holds for each sink while it can't be reached.
const (
	manyLines = 4096
	manyBytes = 4 << 20
	batchSize = 128
)

const (
	sendLimit    = 10 * time.Second // one Send
	lastLimit    = 2 * time.Second  // for what is left at the end
	firstBackOff = time.Second
	longBackOff  = time.Minute
)

// Forwarder sends lines to collectors. It never blocks whoever has one: what
// finds no place is counted as dropped. The file has all of them.
type Forwarder struct {
	lanes []*lane
	log   *logrus.Entry
}

// NewForwarder returns a Forwarder to these sinks, which it closes. It starts
// nothing: Run does.
func NewForwarder(log *logrus.Entry, sinks ...Sink) *Forwarder {
	if log == nil {
		log = logging.Discard()
	}
	f := &Forwarder{log: log}
	for _, s := range sinks {
		f.lanes = append(f.lanes, &lane{sink: s, log: log.WithField("collector", s.Kind()), wake: make(chan struct{}, 1)})
	}
	return f
}

// Forward takes a line for every sink. It returns at once.
func (f *Forwarder) Forward(l Line) {
	for _, x := range f.lanes {
		x.add(l)
	}
}

// Run sends until ctx ends, then tries once to send what is left, and returns
// nil after joining all.
func (f *Forwarder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, x := range f.lanes {
		wg.Go(func() { x.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Delivery is how one collector does.
type Delivery struct {
	Kind          string
	Sent, Dropped uint64
	Waiting       int
	Error         string // why lines wait, "" where they don't
}

// Deliveries tells of each sink.
func (f *Forwarder) Deliveries() []Delivery {
	list := make([]Delivery, 0, len(f.lanes))
	for _, x := range f.lanes {
		x.mu.Lock()
		list = append(list, Delivery{x.sink.Kind(), x.sent, x.dropped, len(x.queue) + x.under, x.failing})
		x.mu.Unlock()
	}
	return list
}

// Warning says in one line what is not delivered, "" where all is.
func (f *Forwarder) Warning() string {
	var parts []string
	for _, d := range f.Deliveries() {
		text := ""
		if d.Error != "" {
			text = fmt.Sprintf("%d lines wait: %s", d.Waiting, d.Error)
		}
		if d.Dropped > 0 {
			if text != "" {
				text = ", " + text
			}
			text = fmt.Sprintf("%d lines were dropped", d.Dropped) + text
		}
		if text != "" {
			parts = append(parts, "the audit log's lines do not all reach "+d.Kind+": "+text)
		}
	}
	return strings.Join(parts, "; ")
}

// lane is the way to one sink.
type lane struct {
	sink Sink
	log  *logrus.Entry
	wake chan struct{} // holds one: there is something to send

	mu            sync.Mutex // guards what follows
	queue         []Line
	bytes         int
	under         int // lines taken out and not delivered yet
	sent, dropped uint64
	failing       string
	closed        bool
}

func (x *lane) add(l Line) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || len(x.queue)+x.under >= manyLines || x.bytes+len(l.JSON) > manyBytes {
		x.dropped++
		return
	}
	x.queue = append(x.queue, l)
	x.bytes += len(l.JSON)
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// take returns the next lines; they stay counted until settle.
func (x *lane) take() []Line {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := min(len(x.queue), batchSize)
	batch := x.queue[:n:n]
	if x.queue = x.queue[n:]; len(x.queue) == 0 {
		x.queue = nil
	}
	x.under = n
	return batch
}

// settle counts what became of the first lines of a batch.
func (x *lane) settle(batch []Line, sent, rejected int, err error) []Line {
	x.mu.Lock()
	defer x.mu.Unlock()
	sent = min(max(sent, 0), len(batch))
	for _, l := range batch[:sent] {
		x.bytes -= len(l.JSON)
	}
	x.under -= sent
	x.sent += uint64(sent - rejected)
	x.dropped += uint64(rejected)
	if rejected > 0 {
		x.log.WithField("lines", rejected).Warn("a collector does not take lines of the audit log")
	}
	was := x.failing
	x.failing = ""
	if err != nil {
		x.failing = strings.Join(strings.Fields(err.Error()), " ")
	}
	switch {
	case was == "" && err != nil:
		x.log.WithError(err).Warn("lines of the audit log wait: a collector can't be reached")
	case was != "" && err == nil:
		x.log.WithField("dropped", x.dropped).Info("a collector is reached again")
	}
	return batch[sent:]
}

func (x *lane) run(ctx context.Context) {
	defer x.sink.Close()
	defer x.end()
	backOff := time.Duration(0)
	var batch []Line
	for {
		if len(batch) == 0 {
			batch = x.take()
		}
		var wait <-chan time.Time
		var wake <-chan struct{}
		var timer *time.Timer
		switch {
		case len(batch) == 0:
			wake = x.wake
		case backOff > 0:
			timer = time.NewTimer(backOff)
			wait = timer.C
		default:
			if ctx.Err() != nil {
				x.last(batch)
				return
			}
			batch, backOff = x.send(ctx, batch, sendLimit, backOff)
			continue
		}
		select {
		case <-ctx.Done():
			x.last(batch)
			return
		case <-wake:
		case <-wait:
			batch, backOff = x.send(ctx, batch, sendLimit, backOff)
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// send tries once, and returns what is left and how long to wait before it is
// tried again.
func (x *lane) send(ctx context.Context, batch []Line, limit, backOff time.Duration) ([]Line, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent, rejected, err := x.sink.Send(ctx, batch)
	if err == nil {
		sent = len(batch)
	}
	batch = x.settle(batch, sent, rejected, err)
	if err == nil {
		return batch, 0
	}
	var later *laterError
	if errors.As(err, &later) && later.after > 0 {
		return batch, min(later.after, longBackOff)
	}
	return batch, min(max(2*backOff, firstBackOff), longBackOff)
}

// last sends what is left when the log ends.
func (x *lane) last(batch []Line) {
	ctx, cancel := context.WithTimeout(context.Background(), lastLimit)
	defer cancel()
	for ctx.Err() == nil {
		if len(batch) == 0 {
			if batch = x.take(); len(batch) == 0 {
				return
			}
		}
		left := len(batch)
		if batch, _ = x.send(ctx, batch, lastLimit, 0); len(batch) == left {
			return
		}
	}
}

// end counts what could not be sent.
func (x *lane) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	if left := len(x.queue) + x.under; left > 0 {
		x.dropped += uint64(left)
		x.log.WithField("lines", left).Warn("lines of the audit log did not reach a collector")
	}
	x.queue, x.under, x.bytes = nil, 0, 0
}

// laterError is a collector's word for when to come again.
type laterError struct {
	text  string
	after time.Duration
}

func (e *laterError) Error() string { return e.text }

// ascii writes a JSON text without a byte above 127: no collector then has to
// guess its encoding.
func ascii(line []byte) string {
	plain := true
	for _, c := range line {
		plain = plain && c < 0x80
	}
	if plain {
		return string(line)
	}
	var b strings.Builder
	for _, r := range string(line) {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

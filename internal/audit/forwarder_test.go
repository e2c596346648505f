package audit

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stuckSink takes nothing until it is let go.
type stuckSink struct {
	let chan struct{}
	got []Line
}

func (s *stuckSink) Kind() string { return "syslog" }
func (s *stuckSink) Close()       {}
func (s *stuckSink) Send(ctx context.Context, lines []Line) (int, int, error) {
	select {
	case <-s.let:
		s.got = append(s.got, lines...)
		return len(lines), 0, nil
	case <-ctx.Done():
		return 0, 0, errors.New("nobody answers")
	}
}

// TestForwardNeverBlocks: a collector that hangs holds up nobody; what finds
// no place is counted, and the order stays.
func TestForwardNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuckSink{let: make(chan struct{})}
		f := NewForwarder(nil, s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = f.Run(ctx) })
		began := time.Now()
		for i := range manyLines + 100 {
			f.Forward(Line{JSON: strconv.Itoa(i)})
		}
		if time.Since(began) != 0 {
			t.Errorf("it took %v", time.Since(began))
		}
		d := f.Deliveries()[0]
		if d.Dropped != 100 || d.Waiting != manyLines {
			t.Errorf("%+v", d)
		}
		time.Sleep(time.Minute)
		if w := f.Warning(); !strings.Contains(w, "100 lines were dropped") || !strings.Contains(w, "nobody answers") {
			t.Errorf("%q", w)
		}
		close(s.let)
		time.Sleep(3 * time.Minute) // the longest wait, and what comes after it
		if d = f.Deliveries()[0]; d.Sent != manyLines || d.Waiting != 0 || d.Error != "" {
			t.Errorf("%+v", d)
		}
		for i, l := range s.got {
			if l.JSON != strconv.Itoa(i) {
				t.Fatalf("line %d is %s", i, l.JSON)
			}
		}
		cancel()
		wg.Wait()
	})
}

// TestForwardEnds: at the end it waits for a collector that hangs two seconds,
// and tells what it could not send.
func TestForwardEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuckSink{let: make(chan struct{})}
		f := NewForwarder(nil, s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = f.Run(ctx) })
		f.Forward(Line{JSON: "1"})
		time.Sleep(30 * time.Second)
		began := time.Now()
		cancel()
		wg.Wait()
		if took := time.Since(began); took > lastLimit {
			t.Errorf("the end took %v", took)
		}
		if d := f.Deliveries()[0]; d.Dropped != 1 || d.Sent != 0 {
			t.Errorf("%+v", d)
		}
		f.Forward(Line{JSON: "2"})
		if d := f.Deliveries()[0]; d.Dropped != 2 || d.Waiting != 0 {
			t.Errorf("after the end: %+v", d)
		}
	})
}

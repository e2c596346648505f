package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"keyfob/internal/cred"
)

// Reacher is a Source that can tell whether there is a way to its upstream,
// by a plain TCP connect: it sends nothing.
type Reacher interface {
	Reach(ctx context.Context) error
}

// Upstreamer is a Source that names its upstream, so that links of the same
// one share their probes and their share of the attempts. A source without
// it, or with "", is an upstream of its own.
type Upstreamer interface {
	Upstream() string
}

// upstreamOf is the name of src's upstream.
func upstreamOf(src cred.Source, key cred.LinkKey) string {
	if u, ok := src.(Upstreamer); ok {
		if name := u.Upstream(); name != "" {
			return name
		}
	}
	return "link " + key.String()
}

// noAnswer reports whether an attempt failed before any HTTP answer came.
func noAnswer(err error) bool {
	var ue *cred.UpstreamError
	return errors.As(err, &ue) && ue.Status == 0 && ue.Code == "" && !ue.Refused
}

// network is what is known of the upstreams that attempts fail to reach.
// Only the minder starts probes, and only while a link's back-off lasts that
// such a failure began: then there is something to be ended early.
type network struct {
	mu      sync.Mutex // guards what follows
	ups     map[string]*way
	running int // probes under way
}

// way is the way to one upstream.
type way struct {
	began   time.Time // the last probe
	running bool
	failing bool // the last probe found no way
}

// probes starts the probes of the upstreams in need and returns when the
// next one is to be started, 0 for none: the end of each probe pokes the
// minder. ctx is that of the refreshers. Only the minder calls it.
func (b *Broker) probes(ctx context.Context, now time.Time, need map[string]*link) time.Duration {
	n := &b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	var next time.Duration
	for name, l := range need {
		w := n.ups[name]
		if w == nil {
			w = &way{}
			if n.ups == nil {
				n.ups = map[string]*way{}
			}
			n.ups[name] = w
		}
		if w.running {
			continue
		}
		if wait := w.began.Add(probeEvery).Sub(now); !w.began.IsZero() && wait > 0 {
			if next == 0 || wait < next {
				next = wait
			}
			continue
		}
		if n.running >= maxProbes {
			continue // the next one that ends makes room
		}
		_, src := l.source()
		r, ok := src.(Reacher)
		if !ok {
			continue
		}
		w.began, w.running = now, true
		n.running++
		b.wg.Go(func() { b.probe(ctx, name, w, r) })
	}
	for name, w := range n.ups {
		// Long enough to outlive an attempt between two back-offs.
		if need[name] == nil && !w.running && now.Sub(w.began) > 2*backoffMax {
			delete(n.ups, name)
		}
	}
	return next
}

// probe looks once whether there is a way. The change from failing to
// connecting, and only that, ends the back-off of who waits for it
// (CONTRACT.md §8): an upstream that can be connected to and does not answer
// is no reason to call more often.
func (b *Broker) probe(ctx context.Context, name string, w *way, r Reacher) {
	err := reach(ctx, r)
	n := &b.net
	n.mu.Lock()
	w.running = false
	n.running--
	back := err == nil && w.failing
	w.failing = err != nil
	n.mu.Unlock()
	if back && ctx.Err() == nil {
		b.log.WithField("upstream", name).Info("the upstream can be reached again")
		b.networkBack(name)
	}
	b.pokeMinder()
}

func reach(ctx context.Context, r Reacher) (err error) {
	ctx, cancel := context.WithTimeout(ctx, probeEvery)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("cannot look for the upstream: internal error (%T)", v)
		}
	}()
	return r.Reach(ctx)
}

// networkBack ends the back-offs that began because the upstream could not
// be reached, and the pauses of the links above.
func (b *Broker) networkBack(name string) {
	links := b.activeLinks()
	woken := map[*link]bool{}
	for _, l := range links {
		if l.reachable(name) {
			woken[l] = true
		}
	}
	for _, l := range links {
		for below := l.below; below != nil; below = below.below {
			if woken[below] {
				l.endPause()
				break
			}
		}
	}
}

// reachable ends l's back-off if it waits for the upstream of that name. A
// network that comes back may stumble: the next failures are counted from a
// short back-off, yet not from the shortest, because it may also flap.
func (l *link) reachable(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.offline != name {
		return false
	}
	l.offline = ""
	l.retryAt = time.Time{}
	l.failures = min(l.failures, 2)
	return true
}

// endPause lets the minder try again at once after a failure below.
func (l *link) endPause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.autoAt = time.Time{}
	l.autoFails = min(l.autoFails, 2)
}

// gate bounds how many attempts call upstreams at once. Those for which there
// is no session come before those that only refresh one ahead of its end.
// Within an upstream they are let in as they came; of several, the one with
// the fewest inside comes first, so that one which does not answer can't hold
// up the others.
type gate struct {
	all, each int // limits, over all and for each upstream

	mu     sync.Mutex // guards what follows
	inside int
	lanes  map[string]*lane // those with somebody inside or waiting
	came   uint64
}

type lane struct {
	inside  int
	waiting [2][]*ticket // by urgency: 0 is first
}

// first is the urgency of who waits first, 2 for nobody.
func (n *lane) first() int {
	for i := range n.waiting {
		if len(n.waiting[i]) > 0 {
			return i
		}
	}
	return len(n.waiting)
}

type ticket struct {
	number uint64
	in     chan struct{} // closed when it is let in
}

// enter waits until there is room, or ctx ends; then leave must not be
// called. urgent says that there is no session.
func (g *gate) enter(ctx context.Context, upstream string, urgent bool) error {
	g.mu.Lock()
	n := g.lanes[upstream]
	if n == nil {
		n = &lane{}
		if g.lanes == nil {
			g.lanes = map[string]*lane{}
		}
		g.lanes[upstream] = n
	}
	g.came++
	t := &ticket{number: g.came, in: make(chan struct{})}
	queue := &n.waiting[1]
	if urgent {
		queue = &n.waiting[0]
	}
	*queue = append(*queue, t)
	g.letIn()
	g.mu.Unlock()
	select {
	case <-t.in:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(*queue, t); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
		g.drop(upstream, n)
		return ctx.Err()
	}
	return nil // let in meanwhile
}

// leave gives the room back.
func (g *gate) leave(upstream string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.lanes[upstream]
	n.inside--
	g.inside--
	g.letIn()
	g.drop(upstream, n)
}

// letIn lets in whom there is room for. mu is held.
func (g *gate) letIn() {
	for g.inside < g.all {
		var next *lane
		for _, n := range g.lanes {
			if n.first() == len(n.waiting) || n.inside >= g.each {
				continue
			}
			if next == nil || n.before(next) {
				next = n
			}
		}
		if next == nil {
			return
		}
		queue := &next.waiting[next.first()]
		t := (*queue)[0]
		(*queue)[0] = nil
		*queue = (*queue)[1:]
		next.inside++
		g.inside++
		close(t.in)
	}
}

// before reports whether n's first comes before o's.
func (n *lane) before(o *lane) bool {
	i, j := n.first(), o.first()
	return cmp.Or(cmp.Compare(i, j), cmp.Compare(n.inside, o.inside),
		cmp.Compare(n.waiting[i][0].number, o.waiting[j][0].number)) < 0
}

// drop forgets a lane that nobody is in. mu is held.
func (g *gate) drop(upstream string, n *lane) {
	if n.inside == 0 && n.first() == len(n.waiting) {
		delete(g.lanes, upstream)
	}
}

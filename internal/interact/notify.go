package interact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// SigninName is the file name of the program that shows notifications and
// dialogs, without ".exe". It is found beside keyfobd.
const SigninName = "keyfob-signin"

// Times and numbers of a Notifier.
const (
	notifyLimit    = 10 * time.Second // of one notification
	notifyAtOnce   = 2
	notifyWaiting  = 16          // that wait for their turn; more are dropped
	notifyCoalesce = time.Minute // in which identical ones are one
)

// NotifierConfig is how a Notifier works. Program is needed; the zero value
// of the rest is the usual one.
type NotifierConfig struct {
	Program string        // the path of keyfob-signin
	Environ []string      // the daemon's environment, of which a part is passed on; nil for os.Environ()
	Limit   time.Duration // of one notification; 10 s
	AtOnce  int           // programs at once; 2
	Log     *logrus.Entry // nil for none
}

// Notifier shows desktop notifications in the session of the user who runs
// the daemon. A daemon that serves a whole system must not have one.
type Notifier struct {
	program string
	env     []string
	limit   time.Duration
	atOnce  int
	log     *logrus.Entry

	ctx    context.Context // of the programs; ends when Close gives up on them
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows
	seen    map[notice]time.Time
	waiting []notice
	running int
	closed  bool
	workers sync.WaitGroup // Add is called with mu held, before closed
}

// notice is what keyfob-signin notify reads.
type notice struct {
	Title string `json:"title"`
	Body  string `json:"body,omitempty"`
}

// NewNotifier returns a Notifier. It starts nothing.
func NewNotifier(cfg NotifierConfig) *Notifier {
	n := &Notifier{program: cfg.Program, limit: cfg.Limit, atOnce: cfg.AtOnce, log: cfg.Log, seen: map[notice]time.Time{}}
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	n.env = sessionEnv(cfg.Environ)
	if n.limit <= 0 {
		n.limit = notifyLimit
	}
	if n.atOnce <= 0 {
		n.atOnce = notifyAtOnce
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// Notify shows title and body, and returns at once, whatever becomes of it.
// One that was shown within the last minute is not shown again. Neither text
// may hold a secret.
func (n *Notifier) Notify(title, body string) {
	item := notice{Title: title, Body: body}
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	for old, at := range n.seen {
		if now.Sub(at) >= notifyCoalesce {
			delete(n.seen, old)
		}
	}
	if _, again := n.seen[item]; again {
		return
	}
	if n.running >= n.atOnce && len(n.waiting) >= notifyWaiting {
		n.note(logrus.WarnLevel, nil, "too many notifications at once: one was dropped")
		return
	}
	n.seen[item] = now
	if n.running >= n.atOnce {
		n.waiting = append(n.waiting, item)
		return
	}
	n.running++
	n.workers.Go(func() { n.work(item) })
}

// work shows item and then what has come to wait meanwhile.
func (n *Notifier) work(item notice) {
	for {
		n.show(item)
		n.mu.Lock()
		if len(n.waiting) == 0 || n.closed {
			n.running--
			n.mu.Unlock()
			return
		}
		item = n.waiting[0]
		n.waiting = n.waiting[1:]
		n.mu.Unlock()
	}
}

func (n *Notifier) show(item notice) {
	request, err := json.Marshal(item)
	if err != nil {
		return // two strings can be marshalled
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.limit)
	defer cancel()
	_, stderr, err := runSignin(ctx, n.program, n.env, request, "notify")
	var exit *signinExit
	switch {
	case err == nil:
	case n.ctx.Err() != nil: // Close gave up on it
	case errors.As(err, &exit) && exit.code == signinNobody:
		n.note(logrus.DebugLevel, err, "a notification was not shown: nobody is there to see it")
	case ctx.Err() != nil:
		n.note(logrus.WarnLevel, errors.New("it did not end in "+n.limit.String()), "a notification was not shown")
	default:
		if line := firstLine(stderr); line != "" {
			err = errors.New(line)
		}
		n.note(logrus.WarnLevel, err, "a notification was not shown")
	}
}

func (n *Notifier) note(level logrus.Level, err error, message string) {
	if n.log == nil || !n.log.Logger.IsLevelEnabled(level) {
		return
	}
	log := n.log
	if err != nil {
		log = log.WithError(err)
	}
	log.Log(level, message)
}

// Close drops what waits, waits for what is being shown until ctx ends, ends
// that then, and returns when no program is left.
func (n *Notifier) Close(ctx context.Context) {
	n.mu.Lock()
	n.closed = true
	n.waiting = nil
	n.mu.Unlock()
	stop := context.AfterFunc(ctx, n.cancel)
	n.workers.Wait()
	stop()
	n.cancel()
}

// firstLine is the first line of what keyfob-signin wrote, without what its
// name says anyway.
func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(bytes.TrimPrefix(bytes.TrimSpace(line), []byte(SigninName+": ")))
}

package imds

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/logging"
	"keyfob/internal/peer"
)

const (
	maxUnknown   = 256 // paths remembered as logged
	unknownEvery = time.Hour
	maxRefusals  = 256 // kinds of refusal remembered in one minute
	refusalEvery = time.Minute
	maxPathLog   = 200 // bytes

	programTimeout = 200 * time.Millisecond
)

// notices writes what an endpoint has to say, so that no caller can fill the
// log: an unknown path once, a kind of refusal of one user once a minute.
type notices struct {
	log *logrus.Entry

	mu       sync.Mutex // guards what follows
	unknown  map[string]struct{}
	filled   time.Time // when unknown had no more room
	refusals map[refusalKey]struct{}
	since    time.Time // when refusals was emptied
}

type refusalKey struct {
	status int
	reason string
	uid    string
}

func newNotices(log *logrus.Entry, s *Server) *notices {
	if log == nil {
		log = logging.Discard()
	}
	fields := logrus.Fields{logging.Endpoint: s.via.Kind + " " + s.via.Listen}
	if s.profile != "" {
		fields[logging.Profile] = s.profile
	}
	return &notices{
		log:      log.WithFields(fields),
		unknown:  map[string]struct{}{},
		refusals: map[refusalKey]struct{}{},
	}
}

// path logs a path that does not exist, once, so that a user sees what a
// tool wanted. Who asks for so many that they can't be remembered has the
// rest of an hour pass unseen.
func (n *notices) path(path, profile string, c peer.Caller, now time.Time) {
	if len(path) > maxPathLog {
		path = path[:maxPathLog]
	}
	n.mu.Lock()
	full := len(n.unknown) >= maxUnknown
	if full && (now.Sub(n.filled) >= unknownEvery || now.Before(n.filled)) {
		clear(n.unknown)
		full = false
	}
	_, known := n.unknown[path]
	if !known && !full {
		n.unknown[path] = struct{}{}
	}
	last := !known && !full && len(n.unknown) == maxUnknown
	if last {
		n.filled = now
	}
	n.mu.Unlock()
	if known || full {
		return
	}
	program := c.Exe
	if program == "" && c.Identified() { // found once for a path, which is why it may cost something
		ctx, cancel := context.WithTimeout(context.Background(), programTimeout)
		defer cancel()
		if p, err := c.Program(ctx); err == nil {
			program = p.Exe
		}
	}
	fields := logrus.Fields{logging.Path: path, logging.Caller: c.UID, logging.Program: program}
	if profile != "" {
		fields[logging.Profile] = profile
	}
	n.log.WithFields(fields).Info("unknown path asked for")
	if last {
		n.log.Info("too many unknown paths: no more are logged for an hour")
	}
}

// refused logs why a request got no answer.
func (n *notices) refused(f *fault, c peer.Caller, now time.Time) {
	if !n.first(refusalKey{f.status, f.reason, c.UID}, now) {
		return
	}
	fields := logrus.Fields{logging.Status: f.status, logging.Reason: f.reason, logging.Caller: c.UID, logging.Program: c.Exe}
	if f.detail != "" {
		fields[logging.Reason] = f.detail
	}
	n.log.WithFields(fields).Info("request refused")
}

// handshake logs why a connection did not come about: mostly a client that
// was not told of the authority, or calls us by another name.
func (n *notices) handshake(why string, c *conn, now time.Time) {
	from := c.caller.UID
	if from == "" {
		from = c.address()
	}
	if len(why) > 2*maxPathLog {
		why = why[:2*maxPathLog]
	}
	if n.first(refusalKey{reason: "handshake", uid: from}, now) {
		n.log.WithFields(logrus.Fields{logging.Reason: why, logging.Caller: from}).Info("connection refused")
	}
}

// exhausted logs why no connection can be accepted now.
func (n *notices) exhausted(err error, now time.Time) {
	if n.first(refusalKey{reason: "exhausted"}, now) {
		n.log.WithField(logrus.ErrorKey, err.Error()).Warn("cannot accept connections")
	}
}

// first reports whether this is the first of its kind within a minute.
func (n *notices) first(key refusalKey, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	// Of two that come at once the later may be here first.
	if now.Sub(n.since).Abs() >= refusalEvery {
		clear(n.refusals)
		n.since = now
	}
	if _, known := n.refusals[key]; known || len(n.refusals) >= maxRefusals {
		return false
	}
	n.refusals[key] = struct{}{}
	return true
}

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
	maxUnknown   = 256 // paths remembered as logged, for the server's life
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
// tool wanted.
func (n *notices) path(path string, c peer.Caller) {
	if len(path) > maxPathLog {
		path = path[:maxPathLog]
	}
	n.mu.Lock()
	_, known := n.unknown[path]
	if !known && len(n.unknown) < maxUnknown {
		n.unknown[path] = struct{}{}
	} else {
		known = true // also when the list is full
	}
	n.mu.Unlock()
	if known {
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
	n.log.WithFields(logrus.Fields{logging.Path: path, logging.Caller: c.UID, logging.Program: program}).Info("unknown path asked for")
}

// refused logs why a request got no answer.
func (n *notices) refused(f *fault, c peer.Caller, now time.Time) {
	key := refusalKey{f.status, f.reason, c.UID}
	n.mu.Lock()
	if now.Sub(n.since) >= refusalEvery || now.Before(n.since) {
		clear(n.refusals)
		n.since = now
	}
	_, known := n.refusals[key]
	if !known && len(n.refusals) < maxRefusals {
		n.refusals[key] = struct{}{}
	} else {
		known = true
	}
	n.mu.Unlock()
	if !known {
		n.log.WithFields(logrus.Fields{
			logging.Status: f.status, logging.Reason: f.reason, logging.Caller: c.UID, logging.Program: c.Exe,
		}).Info("request refused")
	}
}

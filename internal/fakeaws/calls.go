package fakeaws

import (
	"context"
	"time"
)

// Call is one request as it was seen, without secrets.
type Call struct {
	Time      time.Time         `json:"time"` // by the server's clock
	Service   string            `json:"service"`
	Action    string            `json:"action"`
	AccessKey string            `json:"access_key_id,omitempty"` // that signed it
	Principal string            `json:"principal,omitempty"`     // ARN, "" when the signature was refused
	Region    string            `json:"region,omitempty"`        // of the credential scope
	Params    map[string]string `json:"params"`                  // codes, tokens and assertions are [redacted]
	Host      string            `json:"host"`
	UserAgent string            `json:"user_agent,omitempty"`
	RequestID string            `json:"request_id"`
	Done      bool              `json:"done"`             // it was answered, or dropped
	Status    int               `json:"status,omitempty"` // 0 when dropped
	Code      string            `json:"code,omitempty"`   // AWS's error code, "" for none
	Issued    string            `json:"issued,omitempty"` // access key id of the credentials it gave
	Expires   *time.Time        `json:"expires,omitempty"`
	Fault     Kind              `json:"fault,omitempty"`
}

// maxCalls is how many calls are remembered; counters count on.
const maxCalls = 20000

// callLog is what was asked. Server.mu guards it.
type callLog struct {
	calls    []*Call
	counters map[string]int
	changed  chan struct{} // closed and replaced when a call ends
}

func newCallLog() callLog {
	return callLog{counters: map[string]int{}, changed: make(chan struct{})}
}

func (l *callLog) reset() {
	l.calls, l.counters = nil, map[string]int{}
}

// secretParams are never recorded.
var secretParams = map[string]bool{"TokenCode": true, "WebIdentityToken": true, "SAMLAssertion": true, "X-Amz-Security-Token": true, "X-Amz-Signature": true,
	// The JSON services and sign-in pages.
	"clientSecret": true, "deviceCode": true, "code": true, "codeVerifier": true, "refreshToken": true, "accessToken": true, "subjectToken": true,
	"code_verifier": true, "refresh_token": true, "client_secret": true, "password": true, "SAMLResponse": true, "SigninToken": true, "Session": true}

func (l *callLog) begin(q *request, now time.Time, known bool) *Call {
	name := q.action
	if !known {
		name = "?"
	}
	l.counters[name]++
	l.counters["*"]++
	c := &Call{Time: now, Service: q.room.name, Action: q.action, Params: map[string]string{}, Host: q.http.Host,
		UserAgent: q.http.UserAgent(), RequestID: q.id}
	for k, v := range q.params {
		if c.Params[k] = v[0]; secretParams[k] {
			c.Params[k] = "[redacted]"
		}
	}
	if q.fault != nil {
		c.Fault = q.fault.Kind
	}
	if len(l.calls) >= maxCalls {
		l.calls = append(l.calls[:0:0], l.calls[maxCalls/2:]...)
	}
	l.calls = append(l.calls, c)
	return c
}

func (l *callLog) end(c *Call, q *request, a *answer, x *session) {
	c.Done, c.Code, c.Issued = true, a.code, q.issued
	if !a.drop {
		c.Status = a.status
	}
	if q.sig != nil {
		c.AccessKey, c.Region = q.sig.keyID, q.sig.region
	}
	if q.who != nil && a.code != "SignatureDoesNotMatch" {
		c.Principal = q.who.arn
	}
	if x != nil {
		c.Expires = &x.expires
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Calls returns the requests seen since the start or the last Reset, oldest
// first, those of one action only when actions are named. At most the last
// 20,000 are remembered.
func (s *Server) Calls(actions ...string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Call
	for _, c := range s.log.calls {
		if len(actions) == 0 || contains(actions, c.Action) {
			out = append(out, *c)
		}
	}
	return out
}

// Counters returns how many requests came per action, counted on arrival
// (also those that faults hit, not those that an outage kept away); "*" is
// all of them, "?" those that no service knows.
func (s *Server) Counters() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for k, v := range s.log.counters {
		out[k] = v
	}
	return out
}

// Count is one of Counters.
func (s *Server) Count(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.counters[action]
}

// ResetCalls forgets calls and counters.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.reset()
}

// Wait waits until n requests of an action ("*": any) came since the last
// reset and the latest of them was answered; the error is ctx's.
func (s *Server) Wait(ctx context.Context, action string, n int) error {
	for {
		s.mu.Lock()
		got, open := s.log.counters[action], false
		for _, c := range s.log.calls {
			open = open || !c.Done && (action == "*" || c.Action == action)
		}
		changed := s.log.changed
		s.mu.Unlock()
		if got >= n && !open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

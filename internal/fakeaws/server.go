package fakeaws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Server is a fake AWS. New makes one; its methods are safe for concurrent
// use. It opens and starts nothing by itself: serve Handler, or call Start.
type Server struct {
	// mu guards everything below. No handler waits while holding it.
	mu       sync.Mutex
	users    []*user
	keys     map[string]*accessKey // by id
	roles    map[string]*role      // by ARN
	sessions map[string]*session   // by access key id
	sweepAt  int                   // how many sessions there are when old ones go
	set      settings
	log      callLog
	gates    map[*gate]bool // listeners that an outage closes

	pages    pageState
	sso      ssoState
	signin   signinState
	oidc     oidcState
	saml     samlState
	anywhere anywhereState
	console  consoleState
	imds     imdsState
}

// settings are what can be turned at run time. The zero value is a healthy
// AWS.
type settings struct {
	latency  map[string]time.Duration
	faults   []*Fault
	clock    time.Duration
	lifetime time.Duration
	keyDelay time.Duration
	regions  []string
	outage   Outage
}

// New returns an empty fake AWS: no user, no role.
func New() *Server {
	return &Server{
		keys: map[string]*accessKey{}, roles: map[string]*role{}, sessions: map[string]*session{},
		gates: map[*gate]bool{}, log: newCallLog(), sweepAt: minSweep,
		pages:    pageState{modes: map[SignInKind]SignInMode{}, cookies: map[string]string{}},
		sso:      newSSOState(),
		signin:   newSigninState(),
		oidc:     newOIDCState(),
		saml:     newSAMLState(),
		anywhere: anywhereState{anchors: map[string]*anchor{}, profiles: map[string]*AnywhereProfile{}},
		console:  consoleState{tokens: map[string]*signinToken{}},
		imds:     newIMDSState(),
	}
}

// Handler serves every service of the fake on any Host.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// Now is the server's clock: the machine's plus the offset of SetClock.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nowLocked()
}

func (s *Server) nowLocked() time.Time { return time.Now().Add(s.set.clock).UTC() }

// SetClock puts the server's clock off by d: its Date header and its
// judgement of signatures, sessions and MFA codes.
func (s *Server) SetClock(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.clock = d
}

// SetLifetime makes every credential issued from now on live for d,
// whatever DurationSeconds asks; 0 ends that.
func (s *Server) SetLifetime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.lifetime = d
}

// SetLatency makes an action ("AssumeRole"; "*" for all without their own)
// wait for d before it is judged; 0 ends that.
func (s *Server) SetLatency(action string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]time.Duration{}
	for k, v := range s.set.latency {
		m[k] = v
	}
	if m[action] = d; d <= 0 {
		delete(m, action)
	}
	s.set.latency = m
}

// SetKeyDelay makes access keys created from now on unknown
// (InvalidClientTokenId) for d, as AWS's do for some seconds.
func (s *Server) SetKeyDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.keyDelay = d
}

// SetRegions limits the credential scope to these regions (with * and ?);
// none is any that looks like a region.
func (s *Server) SetRegions(regions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.regions = regions
}

// Reset makes the server healthy (no faults, latency, outage, offset or
// forced lifetime, sign-in pages that approve) and forgets calls and counters. Users, roles and sessions
// stay. The error is that of ending an outage.
func (s *Server) Reset() error {
	err := s.SetOutage(Up)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = settings{}
	clear(s.pages.modes)
	s.log.reset()
	return err
}

// maxBody bounds a request's body; AWS's query limit is of this order.
const maxBody = 1 << 20

// request is one request on its way through.
type request struct {
	ctx    context.Context
	http   *http.Request
	body   []byte
	query  url.Values // of the URL
	params url.Values // of the URL and the form
	room   *service
	action string
	id     string // x-amzn-RequestId
	now    time.Time
	sig    *signature
	who    *principal
	fault  *Fault            // that applies to this request, nil for none
	issued string            // access key id made for it
	path   map[string]string // of the route's {x}
	cookie string            // Set-Cookie of the answer
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if s.cut(w, r) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		// What can't be read whole can't be verified either.
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	q := &request{ctx: r.Context(), http: r, body: body, id: requestID(), query: r.URL.Query()}
	q.params = formOf(r, body, q.query)
	var known bool
	q.room, q.action, known = recognise(q)
	act := q.room.actions[q.action]

	s.mu.Lock()
	q.fault = s.takeFaultLocked(q)
	wait, ok := s.set.latency[q.action]
	if !ok {
		wait = s.set.latency["*"]
	}
	entry := s.log.begin(q, s.nowLocked(), known)
	s.mu.Unlock()

	a := s.answer(q, act, known, wait)
	s.mu.Lock()
	q.now = s.nowLocked()
	s.log.end(entry, q, a, s.sessions[q.issued])
	s.mu.Unlock()
	a.write(w, q)
}

// answer judges a request: latency, the faults that come before, the
// signature, the action, the faults that change the answer.
func (s *Server) answer(q *request, act action, known bool, wait time.Duration) *answer {
	if q.fault != nil && q.fault.Kind == Hang {
		wait += q.fault.delay()
	}
	if wait > 0 && !sleep(q.ctx, wait) {
		return &answer{drop: true}
	}
	if a := q.fault.before(q); a != nil {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q.now = s.nowLocked()
	if !known {
		return q.room.failure(q, fail(http.StatusBadRequest, "InvalidAction", "Could not find operation %s for version %s", orElse(q.action, "NO_ACTION_SPECIFIED"), orElse(q.params.Get("Version"), "NO_VERSION_SPECIFIED")))
	}
	if !act.unsigned {
		if err := s.authenticateLocked(q); err != nil {
			return q.room.failure(q, err)
		}
	}
	if q.who != nil && act.permission != "" && q.who.denied(act.permission) {
		return q.room.failure(q, explicitDeny(q.who, act.permission, "*"))
	}
	result, err := act.run(s, q)
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = fail(http.StatusInternalServerError, "InternalFailure", "%v", err)
		}
		return q.room.failure(q, e)
	}
	return q.fault.after(q, q.room.success(q, result))
}

// authenticateLocked finds the principal that signed the request.
func (s *Server) authenticateLocked(q *request) *apiError {
	sig, err := readSignature(q.http, q.query)
	if err != nil {
		return err
	}
	q.sig = sig
	if err := sig.checkScope(q.room.name, s.set.regions); err != nil {
		return err
	}
	var secret string
	if x := s.sessions[sig.keyID]; x != nil {
		if !sameToken(x.token, sig.token) || x.revoked == RevokedInvalid {
			return invalidToken()
		}
		secret, q.who = x.secret, &x.who
		if !x.expires.After(q.now) || x.revoked == RevokedExpired {
			return expiredToken()
		}
		if x.revoked == RevokedDenied && q.action != "GetCallerIdentity" {
			return explicitDeny(q.who, orElse(q.room.actions[q.action].permission, q.room.name+":"+q.action), "*")
		}
	} else {
		k := s.keys[sig.keyID]
		if k == nil || !k.active || k.usableFrom.After(q.now) || sig.token != "" {
			return invalidToken()
		}
		secret = k.secret
		k.used, k.usedRegion, k.usedBy = q.now, sig.region, q.room.name
		q.who = &principal{arn: k.owner.arn, id: k.owner.id, account: k.owner.spec.Account, partition: k.owner.spec.Partition, user: k.owner}
	}
	if err := sig.checkTime(q.now); err != nil {
		return err
	}
	return sig.verify(q.http, q.body, secret)
}

// answer is what goes back.
type answer struct {
	status      int
	contentType string
	body        []byte
	code        string // AWS's error code, for the record
	location    string
	drop        bool // close the connection instead
	half        bool // promise all of the body, send half, close
	noDate      bool
	header      http.Header // more of them
}

func (a *answer) write(w http.ResponseWriter, q *request) {
	if a.drop {
		hangUp(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("X-Amzn-Requestid", q.id)
	h["Date"] = []string{q.now.Format(http.TimeFormat)}
	if a.noDate {
		h["Date"] = nil
	}
	for k, v := range a.header {
		h[k] = v
	}
	if q.cookie != "" {
		h.Set("Set-Cookie", q.cookie)
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	h["Content-Length"] = []string{itoa(len(a.body))}
	w.WriteHeader(a.status)
	if a.half {
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		hangUp(w)
		return
	}
	_, _ = io.Copy(w, bytes.NewReader(a.body))
}

// hangUp closes the connection under a handler.
func hangUp(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
		return
	}
	panic(http.ErrAbortHandler) // HTTP/2 has no hijack: this resets the stream
}

// sleep waits and reports whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package imds

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// Header names in the form that net/http keeps them in.
const (
	headerType          = "Content-Type"
	headerLength        = "Content-Length"
	headerToken         = "X-Aws-Ec2-Metadata-Token"
	headerTTL           = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	headerAuthorization = "Authorization"
)

// exchange is one request with what the dispatcher knows of it. A
// connection has one, used anew for each request.
type exchange struct {
	s       *Server
	live    *live // the settings that it is judged by
	w       http.ResponseWriter
	r       *http.Request
	conn    *conn
	now     time.Time
	caller  peer.Caller
	profile string                    // whose credentials a metadata endpoint serves this caller, or a container's asks for
	path    string                    // raw, without the query
	param   string                    // of the path
	expiry  time.Time                 // of the token; zero when none was needed
	grant   *access.Grant             // that opened a container route
	logged  bool                      // an unknown path is to be logged
	kept    *atomic.Pointer[rendered] // where the answer came from, nil if it is not to be repeated
}

// ServeHTTP answers one request. The checks come in the order of
// CONTRACT.md §5: what can't be parsed 400, the guard 403, the method for
// the path 405, the token 401, existence 404.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		http.Error(w, "", http.StatusInternalServerError) // not on a connection of Run
		return
	}
	s.serve(c, w, r)
}

// serve is ServeHTTP for a request whose connection is known.
func (s *Server) serve(c *conn, w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	pipelined := c.repeater.begin(r.ContentLength != 0)
	c.mu.Unlock()
	var f *fault
	if pipelined {
		f = c.enterLine()
		defer c.leaveLine()
	}
	x := &c.x
	*x = exchange{s: s, live: s.live.Load(), w: w, r: r, conn: c, now: time.Now()}
	if f == nil {
		f = s.dispatch(x)
	}
	if f != nil {
		x.refusal(f)
		x.fail(f)
	}
	c.mu.Lock()
	c.repeater.end(x.kept != nil)
	c.mu.Unlock()
	x.w, x.r, x.grant = nil, nil, nil
}

func (s *Server) dispatch(x *exchange) *fault {
	if f := parsed(x.r); f != nil {
		return f
	}
	if f := s.pass(x); f != nil {
		return f
	}
	x.path = x.r.RequestURI
	if i := strings.IndexByte(x.path, '?'); i >= 0 {
		x.path = x.path[:i]
	}
	var n *node
	if n = x.conn.node; n == nil || x.conn.path != x.path {
		var param string
		n, param = s.routes.match(x.path)
		x.conn.path, x.conn.node, x.conn.param = x.path, n, param
	}
	x.param = x.conn.param

	method := methodOf(x.r.Method)
	if method&n.allowed() == 0 {
		f := methodNotAllowed(n.allowed())
		f.close = x.r.ContentLength != 0
		return f
	}
	row := n.row(method)
	need := s.base
	if row != nil {
		need = row.access
	}
	if f := s.open(x, need); f != nil {
		return f
	}
	if row == nil {
		if n != nil && s.routes.listings {
			return s.serveList(x, n)
		}
		return x.unknown()
	}
	if f := x.body(row.maxBody); f != nil {
		return f
	}
	if row.value != nil {
		facts := s.facts(x.profile)
		text := row.value(&facts)
		if text == "" {
			return x.unknown()
		}
		x.text(text)
		return nil
	}
	return row.serve(x)
}

// row is the node's route for a method, nil for none.
func (n *node) row(m methods) *route {
	switch {
	case n == nil:
		return nil
	case m == methodPut:
		return n.put
	}
	return n.get
}

// parsed refuses what net/http reads and HTTP or EC2 does not know.
func parsed(r *http.Request) *fault {
	if r.Host == "" {
		return badRequest("no Host")
	}
	if r.ContentLength != 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return badRequest("a body on " + r.Method)
	}
	if r.RequestURI == "*" && r.Method != http.MethodOptions {
		return badRequest("target * on another method than OPTIONS")
	}
	return nil
}

// pass is the guard: the request's target, Host and headers, and who sent it.
func (s *Server) pass(x *exchange) *fault {
	r := x.r
	if (x.conn.wire != nil) != (x.live.Certificate != nil) {
		f := forbidden("the endpoint has changed between http and https")
		f.close = true
		return f
	}
	if r.RequestURI == "" || r.RequestURI[0] != '/' && r.RequestURI != "*" {
		return forbidden("a target in absolute or authority form")
	}
	if !x.live.guard.host(r.Host, x.conn) {
		return forbidden("Host is not this endpoint")
	}
	if name := refuses(r.Header); name != "" {
		return forbidden("header " + name)
	}
	if err := x.conn.callerErr; err != nil && !x.live.AllowUnidentified {
		return forbidden(peer.ErrUnidentified.Error()).with(err.Error())
	}
	x.caller = x.conn.caller
	var err error
	if x.profile, err = s.judge(x.caller); err != nil {
		return denied(err)
	}
	return nil
}

// judge finds the profile that a caller is served and asks the rules, where
// this server was given them.
func (s *Server) judge(c peer.Caller) (profile string, err error) {
	profile = s.profile
	if s.profileOf != nil {
		if profile = s.profileOf(c); profile == "" {
			return "", errNoProfile
		}
	}
	if s.check == nil {
		return profile, nil
	}
	return profile, s.check(c, profile, s.via)
}

var errNoProfile = errors.New("the endpoint has no profile for this caller")

// open enforces a route's access.
func (s *Server) open(x *exchange, need accessKind) *fault {
	switch need {
	case accessCaller:
		return nil
	case accessToken, accessGrant, accessGrantPath:
		return s.authorize(x, need)
	}
	return forbidden("the route is closed")
}

// body reads and ignores a request's body up to limit bytes.
func (x *exchange) body(limit int64) *fault {
	if x.r.ContentLength == 0 {
		return nil
	}
	if x.r.ContentLength > limit {
		return tooLarge()
	}
	// A length that came with a transfer coding is not told apart from one
	// that did not: such connections end with the answer, so that nothing
	// after the body is taken for a request.
	if len(x.r.TransferEncoding) > 0 {
		x.w.Header()["Connection"] = []string{"close"}
	}
	control := http.NewResponseController(x.w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return badRequest("the body can't be read")
	}
	x.conn.leaveLine()
	x.conn.spare.Store(true)
	n, err := io.Copy(io.Discard, io.LimitReader(x.r.Body, limit+1))
	x.conn.spare.Store(false)
	select {
	case <-x.conn.eviction():
		panic(http.ErrAbortHandler) // as in enterLine
	default:
	}
	switch {
	case err != nil:
		return badRequest("the body can't be read")
	case n > limit:
		return tooLarge()
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return badRequest("the body can't be read")
	}
	return nil
}

func (s *Server) serveList(x *exchange, n *node) *fault {
	facts := s.facts(x.profile)
	text := s.routes.list(n, &facts)
	if text == "" {
		return x.unknown()
	}
	x.text(text)
	return nil
}

// get asks the broker for a profile, waiting at most as long as this
// endpoint's clients do. What it returns may be handed out.
func (x *exchange) get(profile string) (*cred.Snapshot, *fault) {
	ctx := &waiting{Context: x.r.Context(), conn: x.conn, deadline: x.now.Add(x.s.wait)}
	r := cred.Request{Caller: x.caller, Profile: profile, Policy: x.live.Policy, Via: x.s.via}
	if x.grant != nil {
		r.Grant, r.RoleARN, r.Implicit, r.Policy = x.grant.ID, x.grant.RoleARN, x.grant.Implicit, x.grant.Policy
	}
	x.conn.leaveLine() // the broker may wait for AWS, or a person
	snapshot, err := x.s.broker.Get(ctx, r)
	ctx.end()
	if err != nil {
		return nil, faultOf(err, x.s.as, x.now)
	}
	if snapshot == nil || !snapshot.Temporary() {
		return nil, faultOf(errLongLived, x.s.as, x.now)
	}
	return snapshot, nil
}

var errLongLived = errors.New("the broker gave credentials without a session token or an end")

// unknown is the 404 of a path that is not there.
func (x *exchange) unknown() *fault {
	x.logged = true
	return notFound()
}

// Values of headers that never change, shared by all answers.
var (
	textPlain = []string{"text/plain"}
	textHTML  = []string{"text/html"}
	typeJSON  = []string{"application/json"}
	ec2Server = []string{"EC2ws"} // Packer and older Terraform providers look for it before they ask anything else
	noRanges  = []string{"none"}
)

// text answers 200 with plain text.
func (x *exchange) text(body string) {
	x.head(http.StatusOK, textPlain)
	if x.s.since != nil {
		h := x.w.Header()
		h["Accept-Ranges"], h["Last-Modified"] = noRanges, x.s.since
	}
	x.measure(len(body))
	_, _ = io.WriteString(x.w, body) // a client that is gone gets nothing
}

// head sets the headers of an answer. The token's goes with whatever a token
// opened, as on EC2.
func (x *exchange) head(status int, contentType []string) {
	h := x.w.Header()
	h[headerType] = contentType
	if x.s.as == metadataForm {
		h["Server"] = ec2Server
	}
	if !x.expiry.IsZero() && status == http.StatusOK {
		h[headerTTL] = x.s.left(int(x.expiry.Sub(x.now) / time.Second))
	}
}

// measure sets the length of a body that is too long for net/http to do so
// itself (it buffers 2048 bytes before it sends the head).
func (x *exchange) measure(length int) {
	if length > 2000 || length == 0 { // of an empty one it says nothing to HEAD
		x.w.Header()[headerLength] = []string{strconv.Itoa(length)}
	}
}

// seconds is a value of the TTL header.
type seconds struct {
	n     int
	value []string
}

// left is the TTL header's value, kept for the second that it is true of most
// tokens.
func (s *Server) left(n int) []string {
	v := s.ttl.Load()
	if v == nil || v.n != n {
		v = &seconds{n, []string{strconv.Itoa(n)}}
		s.ttl.Store(v)
	}
	return v.value
}

// fail sends a fault in the server's form and logs what should be.
func (x *exchange) fail(f *fault) {
	switch {
	case x.logged:
		x.s.log.path(x.shown(), x.profile, x.caller, x.now)
	case f.reason != "":
		x.s.log.refused(f, x.caller, x.now)
	}
	h := x.w.Header()
	if f.allow != "" {
		h["Allow"] = []string{f.allow}
	}
	if f.status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"}
	}
	if f.close {
		h["Connection"] = []string{"close"}
	}
	body, contentType := f.document, textPlain
	switch {
	case body != nil:
	case x.s.as == containerForm:
		body, contentType = object(f), typeJSON
	default:
		body, contentType = page(f.status), textHTML
	}
	x.head(f.status, contentType)
	x.measure(len(body))
	x.w.WriteHeader(f.status)
	_, _ = x.w.Write(body)
}

// shown is the path as it may be logged. What follows /v2/credentials/ on a
// container endpoint can be the id of a grant, which is a secret: two
// segments are shown.
func (x *exchange) shown() string {
	if x.s.as != containerForm {
		return x.path
	}
	segments := strings.SplitAfterN(x.path, "/", 4)
	if len(segments) < 4 {
		return x.path
	}
	return strings.Join(segments[:3], "") + "…"
}

// waiting is a context that ends at its deadline. Its timer is made only
// when somebody waits, which is nobody while credentials are warm.
type waiting struct {
	context.Context
	conn     *conn // whose client may leave meanwhile; nil for none
	deadline time.Time

	mu     sync.Mutex // guards what follows
	inner  context.Context
	cancel context.CancelFunc
	stop   func() // nobody looks any more whether the client leaves
	over   bool   // the handler waits no more
}

// Deadline returns the deadline.
func (w *waiting) Deadline() (time.Time, bool) { return w.deadline, true }

// Done starts the timer.
func (w *waiting) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inner == nil {
		w.inner, w.cancel = context.WithDeadline(w.Context, w.deadline)
		switch {
		case w.conn == nil || w.over:
		case w.conn.plain.Load():
			w.stop = w.conn.listen(w.cancel)
		default:
			w.conn.setWatched(true)
			w.stop = func() { w.conn.setWatched(false) }
		}
	}
	return w.inner.Done()
}

// Err says why the context ended, nil while it has not.
func (w *waiting) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inner != nil {
		return w.inner.Err()
	}
	if err := w.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(w.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// end stops the timer.
func (w *waiting) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
	}
	if w.stop != nil {
		w.stop()
	}
	w.over, w.stop = true, nil
}

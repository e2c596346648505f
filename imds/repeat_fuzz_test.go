package imds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// world is what two servers are asked about: one repeats answers, the other
// judges every request in full. A program of bytes changes it and asks both
// the same; their answers and their audit must be the same.
type world struct {
	t *testing.T

	maker      int
	makers     [2]*access.Tokens
	generation uint64
	denied     bool
	role       string
	other      bool // the caller is served another profile
	failure    error
	snapshots  map[string]*cred.Snapshot // by profile and policy
	live       Live
	tokens     [2]string // a long-lived one and one of a minute

	servers [2]*Server
	pipes   [2]*pipeListener
	clients [2]*client
	audits  [2]*recorder
}

func (w *world) profile(peer.Caller) string {
	return map[bool]string{false: "dev", true: "prod"}[w.other]
}

// Get makes credentials for a profile and a policy as a broker does: the same
// until they are replaced.
func (w *world) Get(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
	if w.failure != nil {
		return nil, w.failure
	}
	key := r.Profile + "/" + r.Policy
	s := w.snapshots[key]
	if s == nil {
		s = snapshot(2 * time.Hour)
		s.AccessKeyID = fmt.Sprintf("ASIA/%s/%d", key, len(w.snapshots))
		w.snapshots[key] = s
	}
	return s, nil
}

func (w *world) replace() {
	for key := range w.snapshots {
		s := snapshot(2 * time.Hour)
		s.AccessKeyID = fmt.Sprintf("ASIA/%s/%d", key, time.Now().UnixNano())
		w.snapshots[key] = s
	}
}

func (w *world) start(ctx context.Context, done chan<- error) {
	w.live = Live{AllowUnidentified: true}
	for i := range w.servers {
		w.pipes[i], w.audits[i] = newPipes(), &recorder{}
		s := NewMetadata(MetadataConfig{
			Listener: w.pipes[i], Profile: "dev", ProfileOf: w.profile, AllowUnidentified: true, Broker: w, Audit: w.audits[i],
			identify: nobody, machine: func() machine { return testMachine },
			Check: func(peer.Caller, string, cred.Endpoint) error {
				if w.denied {
					return &access.Denied{Reason: "denied for a test"}
				}
				return nil
			},
			Tokens:     func() *access.Tokens { return w.makers[w.maker] },
			Generation: func(string) uint64 { return w.generation },
			Facts: func(profile string) Facts {
				f := testFacts(profile)
				f.RoleName = w.role
				return f
			},
		})
		if i == 1 {
			s.again = func(*conn, time.Time) (*rendered, time.Time) { return nil, time.Time{} }
		}
		s.limits.pause = 0 // both are to see the same time
		w.servers[i] = s
		go func() { done <- s.Run(ctx) }()
	}
	for i, ttl := range []time.Duration{6 * time.Hour, time.Minute} {
		w.tokens[i] = w.makers[0].Mint(time.Now(), ttl, access.Binding{Endpoint: "imds " + pipeAddress, Generation: w.generation})
	}
}

// ask sends both the same bytes, in two pieces where cut is inside them, and
// compares what comes back.
func (w *world) ask(methods []string, text string, cut int) {
	w.t.Helper()
	var got [2][]answer
	for i := range w.clients {
		if w.clients[i] == nil {
			w.clients[i] = w.pipes[i].dial(w.t)
		}
		c := w.clients[i]
		synctest.Wait()
		written := make(chan struct{})
		go func() {
			defer close(written)
			if cut > 0 && cut < len(text) {
				if _, err := io.WriteString(c, text[:cut]); err != nil {
					return
				}
				synctest.Wait()
				_, _ = io.WriteString(c, text[cut:])
				return
			}
			_, _ = io.WriteString(c, text)
		}()
		for _, method := range methods {
			a, err := c.read(method)
			if err != nil {
				a = answer{body: "no answer"}
			}
			a.header.Del("Date")
			got[i] = append(got[i], a)
		}
		for _, a := range got[i] {
			if a.closed || a.header == nil {
				c.Close()
				w.clients[i] = nil
			}
		}
		<-written
	}
	if !reflect.DeepEqual(got[0], got[1]) {
		w.t.Errorf("%q:\nrepeating %+v\nin full   %+v", text, got[0], got[1])
	}
	events := [2][]cred.Event{w.audits[0].take(), w.audits[1].take()}
	if !reflect.DeepEqual(events[0], events[1]) {
		w.t.Errorf("%q: recorded\nrepeating %+v\nin full   %+v", text, events[0], events[1])
	}
	for _, answers := range got[0] {
		handedOut := strings.Contains(answers.body, canarySecret)
		if handedOut && (w.denied || w.failure != nil || len(events[0]) == 0) {
			w.t.Errorf("%q: a secret; denied %v, failure %v, recorded %v", text, w.denied, w.failure, events[0])
		}
	}
}

// run obeys a program. Low values ask, and most ask for the same thing.
func (w *world) run(program []byte) {
	path := func(role string) string { return "/latest/meta-data/iam/security-credentials/" + role }
	good := request("GET", path(testRole), pipeAddress, withToken(w.tokens[0]))
	get := []string{"GET"}
	for pc := 0; pc < len(program) && !w.t.Failed(); pc++ {
		arg := 0
		if pc+1 < len(program) {
			arg = int(program[pc+1])
		}
		switch program[pc] % 32 {
		case 1:
			w.ask(get, request("GET", path(testRole), pipeAddress, withToken(w.tokens[1])), 0)
		case 2:
			w.ask(get, request("GET", path(testRole), pipeAddress), 0)
		case 3:
			w.ask(get, request("GET", path(testRole), "alias.example", withToken(w.tokens[0])), 0)
		case 4:
			w.ask(get, request("GET", path(""), pipeAddress, withToken(w.tokens[0])), 0)
		case 5:
			w.ask(get, request("GET", strings.Replace(path(testRole), "/security-credentials/", "/security-credentials-extended/", 1), pipeAddress, withToken(w.tokens[0])), 0)
		case 6:
			w.ask([]string{"HEAD"}, request("HEAD", path(testRole), pipeAddress, withToken(w.tokens[0])), 0)
		case 7:
			w.ask([]string{"GET", "GET"}, good+good, 0)
		case 8:
			w.ask(get, good, arg)
		case 9:
			w.ask(get, strings.Replace(good, "\r\n\r\n", "\r\nOrigin: x\r\n\r\n", 1), 0)
		case 10:
			w.ask(get, request("GET", path("other"), pipeAddress, withToken(w.tokens[0])), 0)
		case 11:
			w.ask(get, request("GET", path(testRole), pipeAddress, withToken(flip(w.tokens[0][0])+w.tokens[0][1:])), 0)
		case 12:
			w.ask(get, strings.Replace(good, "X-aws-ec2-metadata-token:", "X-aws-ec2-metadata-token :", 1), 0)
		case 16:
			w.generation ^= 1
		case 17:
			w.denied = !w.denied
		case 18:
			w.role = map[bool]string{true: "other", false: testRole}[w.role == testRole]
		case 19:
			w.other = !w.other
		case 20:
			w.failure = []error{nil, cred.ErrDenied, cred.ErrUnavailable, &cred.UpstreamError{Refused: true, Message: "AWS says no"}, cred.ErrLocked, errors.New("odd")}[arg%6]
		case 21:
			w.maker ^= 1
		case 22, 23, 24:
			switch program[pc] % 32 {
			case 22:
				w.live.Hosts = map[bool][]string{true: {"alias.example"}, false: nil}[w.live.Hosts == nil]
			case 23:
				w.live.IMDSv1 = !w.live.IMDSv1
			case 24:
				w.live.Policy = map[bool]string{true: "read-only", false: ""}[w.live.Policy == ""]
			}
			for _, s := range w.servers {
				s.Configure(w.live)
			}
		case 25:
			w.live.AllowUnidentified = !w.live.AllowUnidentified
			for _, s := range w.servers {
				s.Configure(w.live)
			}
		case 26:
			time.Sleep(time.Duration(arg%60) * time.Second)
		case 27:
			w.replace()
		case 28:
			for _, s := range w.servers {
				s.Forget()
			}
		case 29:
			w.snapshots["dev/"] = &cred.Snapshot{Credentials: cred.Credentials{AccessKeyID: "AKIA", SecretAccessKey: cred.NewSecret(canarySecret)}}
		default:
			w.ask(get, good, 0)
		}
	}
}

// FuzzRepeat: whatever happens between requests, a server that repeats
// answers says and records what one says that judges each in full.
func FuzzRepeat(f *testing.F) {
	for op := range byte(32) { // each change between equal requests, there and back
		f.Add([]byte{0, 0, 0, op, 3, 0, 0, op, 0, 0, 0, 1, 1, 1, op, 59, 1, 1, 26, 30, 1, 1, 26, 40, 1, 1, 23, 2, 2, op, 2, 2, 23, 2, 2, 22, 3, 3, op, 3, 22, 3, 5, 5, op, 5})
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		program := make([]byte, 200)
		for i := range program {
			if program[i] = 0; random.IntN(3) == 0 {
				program[i] = byte(random.IntN(256))
			}
		}
		f.Add(program)
	}
	f.Add(make([]byte, 10))
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 300 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, makers: [2]*access.Tokens{access.NewTokens([32]byte{1}), access.NewTokens([32]byte{2})}, generation: 6, role: testRole, snapshots: map[string]*cred.Snapshot{}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 2)
			w.start(ctx, done)
			w.run(program)
			for _, c := range w.clients {
				if c != nil {
					c.Close()
				}
			}
			cancel()
			for range w.servers {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if bytes.HasPrefix(program, make([]byte, 4)) && w.servers[0].repeated.Load() == 0 {
				t.Error("nothing was repeated")
			}
			if n := w.servers[1].repeated.Load(); n > 0 {
				t.Errorf("the other repeated %d answers", n)
			}
		})
	})
}

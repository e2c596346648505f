package imds

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// counter is a Recorder that only counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Record(cred.Event) { c.n.Add(1) }

// TestNoGrowth: what a server holds does not depend on how much it was asked:
// not for credentials and tokens, and not for whatever else a caller can make
// up. KEYFOB_TEST_SOAK makes it a million requests and 100,000 tokens.
func TestNoGrowth(t *testing.T) {
	requests := 40000
	switch {
	case os.Getenv("KEYFOB_TEST_SOAK") != "":
		requests = 1000000
	case testing.Short() || raceEnabled:
		requests = 10000
	}
	audit := &counter{}
	log, _ := newLog(t)
	log.Logger.SetOutput(io.Discard)
	var users atomic.Uint64
	address := metadataServer(t, func(c *MetadataConfig) {
		c.Audit, c.Log = audit, log
		c.identify = func(net.Conn) (peer.Caller, error) { return peer.Caller{UID: "1000"}, nil }
	})
	crowded := metadataServer(t, func(c *MetadataConfig) {
		c.Log = log
		c.identify = func(net.Conn) (peer.Caller, error) {
			return peer.Caller{UID: strconv.FormatUint(users.Add(1), 10)}, nil // everybody once
		}
	})
	grants := newGrants(t)
	_, grant := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000"})
	container := containerServer(t, func(c *ContainerConfig) { c.Grants, c.Audit, c.Log, c.identify = grants, audit, log, someone("1000") })
	token := newToken(t, address)

	var connections [8]*client
	for i := range connections {
		connections[i] = dial(t, address)
		_ = connections[i].SetDeadline(time.Now().Add(10 * time.Minute))
		defer connections[i].Close()
	}
	good := request("GET", credentialsPath, address, withToken(token))
	put := request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 21600")
	round := func(n int) {
		var wg sync.WaitGroup
		for i, c := range connections {
			wg.Go(func() {
				ask := func(method, r string, status int) {
					if _, err := io.WriteString(c, r); err != nil {
						t.Error(err)
						return
					}
					if a, err := c.read(method); err != nil || a.status != status {
						t.Errorf("%.80q: %d %v", r, a.status, err)
					}
				}
				random := rand.New(rand.NewPCG(uint64(n), uint64(i)))
				for range n / len(connections) {
					if t.Failed() {
						return
					}
					ask("GET", good, 200)
					odd := strconv.FormatUint(random.Uint64(), 36)
					switch random.IntN(20) {
					case 0, 1:
						ask("PUT", put, 200)
					case 2:
						ask("GET", request("GET", "/latest/meta-data/"+odd, address, withToken(token)), 404)
					case 3:
						ask("GET", request("GET", credentialsPath, address, withToken(odd)), 401)
					case 4:
						ask("GET", request("GET", credentialsPath, odd+".example", withToken(token)), 403)
					case 5:
						ask("GET", request("GET", credentialsPath, address, withToken(token), "X-Forwarded-"+odd+": x"), 403)
					}
				}
			})
		}
		for range n / 100 {
			for _, one := range []struct{ address, request string }{
				{address, put}, {crowded, request("GET", credentialsPath, crowded)},
				{container, request("GET", "/v1/credentials/"+strconv.FormatUint(rand.Uint64(), 36), container, authorization(grant))},
				{container, request("GET", "/v1/credentials/dev", container, authorization(grant))},
			} {
				raw(t, one.address, strings.SplitN(one.request, " ", 2)[0], one.request)
			}
		}
		wg.Wait()
	}
	heap := func() int {
		runtime.GC()
		runtime.GC() // what pools held
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	round(requests / 5) // fills what is bounded: pools, notices, users
	before, goroutines := heap(), runtime.NumGoroutine()
	round(requests)
	after := heap()
	t.Logf("%d requests: %d KB, then %d KB; %d events", requests, before>>10, after>>10, audit.n.Load())
	if after-before > 512<<10 {
		t.Errorf("%d bytes more after %d requests", after-before, requests)
	}
	if n := runtime.NumGoroutine(); n > goroutines+20 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

// TestAuditIsCheap: the record of a repeated hand-out allocates nothing.
func TestAuditIsCheap(t *testing.T) {
	audit := &counter{}
	s := &Server{audit: audit}
	c := &conn{caller: peer.Caller{UID: "1000", Via: peer.ViaTCP}}
	given := newBroker().warm.Load()
	at := given.Fetched
	if n := testing.AllocsPerRun(100, func() { s.handout(&c.caller, at, "dev", "", given, at) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if audit.n.Load() == 0 {
		t.Error("nothing is recorded")
	}
}

// TestBounded: what a request can bring into the audit log is bounded, and has
// nothing in it that a line of a log has not.
func TestBounded(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "a b": "a b", "a\nb\x00\x7f": "a?b??", "é": "é", "\xff": "?", strings.Repeat("x", 300): strings.Repeat("x", 200), strings.Repeat("x", 199) + "é": strings.Repeat("x", 199) + "?"} {
		if got := bounded(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	audit, grants := &recorder{}, newGrants(t)
	_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000"})
	stolen, stolenToken := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1001"})
	address := containerServer(t, func(c *ContainerConfig) { c.Audit, c.Grants, c.identify = audit, grants, someone("1000") })
	get(t, address, "/v1/credentials/"+strings.Repeat("p", 3000), authorization(token))
	get(t, address, "/v1/credentials/dev", authorization(token), "X-Forwarded-"+strings.Repeat("p", 3000)+": x")
	get(t, address, "/v1/credentials/dev", authorization(stolenToken))
	events := audit.take()
	if len(events) != 3 {
		t.Fatalf("recorded %+v", events)
	}
	for _, e := range events {
		if len(fmt.Sprintf("%+v", e)) > 1500 {
			t.Errorf("recorded %+v", e)
		}
	}
	if events[2].Grant != stolen.ID || events[2].Kind != cred.EventRefusal || events[1].Reason != "header X-Forwarded-*" {
		t.Errorf("recorded %+v", events[1:])
	}
}

package imds

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
)

// sends writes on a connection of a user, and does not wait for an answer.
func (a *arriving) sends(t *testing.T, uid, text string) *client {
	t.Helper()
	c := a.from(t, uid)
	go func() { _, _ = io.WriteString(c, text) }()
	synctest.Wait()
	return c
}

// answered reads n answers, which must be good and come within a time.
func (c *client) answered(t *testing.T, what, method string, n int, within time.Duration) {
	t.Helper()
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(time.Hour))
	for i := range n {
		if a, err := c.read(method); err != nil || a.status != 200 {
			t.Fatalf("%s: answer %d is %+v, %v", what, i, a, err)
		}
	}
	if took := time.Since(began); took > within {
		t.Errorf("%s: answered after %v", what, took)
	}
}

const tokenTTL = "X-aws-ec2-metadata-token-ttl-seconds: 60"

// TestLineWaits: a user whose requests wait, for what the client sends or
// reads, or for the broker, keeps no other user's waiting.
func TestLineWaits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 12<<10)
	file := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(file, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	slowBody := request("PUT", "/latest/api/token", pipeAddress, "Content-Length: 9", tokenTTL) + "x"
	userData := func(get string) string {
		return strings.Replace(get, credentialsPath, "/latest/user-data", 1)
	}
	const behind = "such a body behind another request"
	for name, flood := range map[string]func(get string) string{
		"a body that does not come":           func(string) string { return slowBody },
		behind:                                func(get string) string { return role(get) + slowBody },
		"credentials that do not come, twice": func(get string) string { return get + get },
		"long answers that nobody reads":      func(get string) string { return userData(get) + userData(get) },
	} {
		t.Run(name, func(t *testing.T) {
			broker := newBroker()
			broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
				if r.Caller.UID == "1" {
					<-ctx.Done()
					time.Sleep(20 * time.Second) // as long as one at a container endpoint
					return nil, ctx.Err()
				}
				return broker.warm.Load(), nil
			}
			crowded(t, func(c *MetadataConfig) {
				c.Broker = broker
				c.Facts = func(p string) Facts { f := testFacts(p); f.UserDataFile = file; return f }
			}, func(t *testing.T, l []*arriving, get func(string) string) {
				var all []*client
				for range 3 {
					c := l[0].sends(t, "1", flood(get("1")))
					if name == behind {
						if _, err := c.read("GET"); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
					}
					all = append(all, c)
				}
				for what, own := range map[string]struct {
					method, text string
					answers      int
				}{
					"a token, asked for with a body": {"PUT", request("PUT", "/latest/api/token", pipeAddress, "Content-Length: 1", tokenTTL) + "x", 1},
					"a long head":                    {"GET", strings.Replace(get("2"), "\r\n\r\n", "\r\nUser-Agent: "+long[:3000]+"\r\n\r\n", 1), 1},
					"two at once":                    {"GET", get("2") + get("2"), 2},
				} {
					c := l[0].sends(t, "2", own.text)
					c.answered(t, what, own.method, own.answers, 10*time.Millisecond)
					c.Close()
				}
				for _, c := range all {
					c.Close()
				}
			})
		})
	}
}

// role asks for the role's name instead of its credentials.
func role(get string) string {
	return strings.Replace(get, credentialsPath, strings.TrimSuffix(credentialsPath, testRole), 1)
}

// TestLineIsFair: of a user's pipelined requests one stands in line, so that
// another user's comes next.
func TestLineIsFair(t *testing.T) {
	t.Parallel()
	crowded(t, func(c *MetadataConfig) { c.Limits.pause = time.Second }, func(t *testing.T, l []*arriving, get func(string) string) {
		for range 4 {
			c := l[0].sends(t, "1", role(get("1"))+role(get("1")))
			defer c.Close()
		}
		c := l[0].sends(t, "2", role(get("2"))+role(get("2")))
		defer c.Close()
		c.answered(t, "the other user", "GET", 1, 2*time.Second) // one of theirs, and its own
	})
}

// TestLineEnds: a pipelined request whose turn does not come is refused for
// now; those that are not pipelined need no turn.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	var limits *Limits
	crowded(t, func(c *MetadataConfig) { limits = c.Limits }, func(t *testing.T, l []*arriving, get func(string) string) {
		limits.inLine <- struct{}{}
		defer func() { <-limits.inLine }()
		began := time.Now()
		two := l[0].sends(t, "1", get("1")+get("1"))
		defer two.Close()
		_ = two.SetReadDeadline(time.Now().Add(time.Hour))
		long := strings.Replace(get("2"), "\r\n\r\n", "\r\nUser-Agent: "+strings.Repeat("x", 3000)+"\r\n\r\n", 1)
		body := request("PUT", "/latest/api/token", pipeAddress, "Content-Length: 1", tokenTTL) + "x"
		c := l[0].from(t, "2")
		defer c.Close()
		for range 3 { // one after the other, in one piece each and in two
			for method, text := range map[string]string{"GET": long, "PUT": body} {
				for _, cut := range []int{0, 1, len(text) - 1} {
					go func() {
						if cut > 0 {
							_, _ = io.WriteString(c, text[:cut])
							time.Sleep(time.Millisecond)
						}
						_, _ = io.WriteString(c, text[cut:])
					}()
					c.answered(t, method, method, 1, time.Millisecond)
				}
			}
		}
		a, err := two.read("GET")
		if took := time.Since(began); err != nil || a.status != 503 || a.header.Get("Retry-After") != "1" || !a.closed || took != lineTimeout {
			t.Errorf("%+v, %v, after %v", a, err, took)
		}
		if len(limits.users["1"].line) != 0 {
			t.Error("it holds its user's turn still")
		}
	})
}

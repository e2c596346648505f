//go:build !windows

package daemon

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/control"
)

func endpointToml(listen, profile string) string {
	return fmt.Sprintf("[[endpoint]]\nkind = \"imds\"\nlisten = %q\nprofile = %q\n", listen, profile)
}

// freePort is an address that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestReloadChangesEndpoints: an endpoint goes, one comes, one changes its
// profile and hosts; a connection of the one that stays serves on, with the
// new settings from its next request.
func TestReloadChangesEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := freePort(t), freePort(t), freePort(t)
	w.config(endpointToml(a, "app") + endpointToml(b, "two"))
	w.start()
	ka, kb := dialIMDS(t, a), dialIMDS(t, b)
	if id := ka.keyID("app"); !strings.HasPrefix(id, "ASIAAPP") {
		t.Fatalf("A serves %s", id)
	}
	if id := kb.keyID("two"); !strings.HasPrefix(id, "ASIATWO") {
		t.Fatalf("B serves %s", id)
	}

	w.config(endpointToml(a, "three") + "hosts = ['metadata.test']\n" + endpointToml(c, "app"))
	w.must(control.MethodReload, nil, nil)
	if role := ka.role(); role != "three" {
		t.Errorf("the role of A on its old connection is %s", role)
	}
	if id := ka.keyID("three"); !strings.HasPrefix(id, "ASIATHREE") {
		t.Errorf("A serves %s", id)
	}
	ka.host = "metadata.test"
	if role := ka.role(); role != "three" {
		t.Errorf("a host name that is new: %s", role)
	}
	if id := dialIMDS(t, c).keyID("app"); !strings.HasPrefix(id, "ASIAAPP") {
		t.Errorf("C serves %s", id)
	}
	if n := len(w.sts.asked("app")); n != 1 {
		t.Errorf("app's session was fetched %d times", n)
	}
	if _, _, err := kb.do("GET", credentialsPath, "X-aws-ec2-metadata-token: "+kb.token); err == nil {
		t.Error("a connection of B serves on")
	}
	if conn, err := net.Dial("tcp", b); err == nil {
		_ = conn.Close()
		t.Error("B accepts")
	}
	// The address is free at once.
	w.config(endpointToml(a, "three") + endpointToml(b, "two"))
	w.must(control.MethodReload, nil, nil)
	if role := dialIMDS(t, b).role(); role != "two" {
		t.Errorf("B came back with %s", role)
	}
	ka.host = a
	if role := ka.role(); role != "three" {
		t.Errorf("A after two reloads: %s", role)
	}
	ka.host = "metadata.test"
	if role := ka.role(); role != "403" {
		t.Errorf("a host name that has gone: %s", role)
	}
}

// TestReloadIsWholeOrNotAtAll: where one address can't be bound, or one
// setting is bad, nothing has changed, and status says why.
func TestReloadIsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, free := freePort(t), freePort(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good := endpointToml(a, "app")
	w.config(good)
	w.start()
	k := dialIMDS(t, a)
	rule := "[[profile]]\nname = 'app'\nallow_users = ['54321']\n"
	for name, c := range map[string]struct{ text, want string }{
		"taken address": {"default_profile = 'x'\n" + endpointToml(a, "three") + endpointToml(free, "two") + endpointToml(taken.Addr().String(), "two") + rule, taken.Addr().String()},
		"bad value":     {endpointToml(a, "three") + rule + "allow_users = 3\n", "config.toml:"},
		"bad policy":    {endpointToml(a, "three") + "policy = 'policy.json'\n" + rule, "config.toml:5"},
		"unknown user":  {endpointToml(a, "three") + "allow_users = ['nobody-of-that-name']\n", "nobody-of-that-name"},
		"bad AWS file":  {"[aws]\nconfig_file = 'broken'\n" + endpointToml(a, "three") + rule, "broken:1"},
		"bad metrics":   {endpointToml(a, "three") + endpointToml(free, "two") + rule + "[metrics]\nlisten = '" + taken.Addr().String() + "'\n", taken.Addr().String()},
	} {
		w.write("config/keyfob/policy.json", "[]")
		w.write("config/keyfob/broken", "not a line of the grammar\n")
		w.config(c.text)
		if err := w.try(control.MethodReload, nil, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the reload says %v", name, err)
		}
		if got := w.status().ReloadError; !strings.Contains(got, c.want) {
			t.Errorf("%s: status says %q", name, got)
		}
		if role := k.role(); role != "app" {
			t.Errorf("%s: the endpoint serves %s", name, role)
		}
		if conn, err := net.Dial("tcp", free); err == nil {
			_ = conn.Close()
			t.Errorf("%s: the address that could be bound is open", name)
		}
		w.config(good)
		w.must(control.MethodReload, nil, nil)
		if got := w.status().ReloadError; got != "" {
			t.Errorf("%s: a good one leaves %q", name, got)
		}
	}
	// A policy that is mended is seen without touching config.toml.
	w.write("config/keyfob/policy.json", "[]")
	w.config(good + "policy = 'policy.json'\n")
	w.eventually("the bad policy is shown", func() bool { return w.status().ReloadError != "" })
	w.write("config/keyfob/policy.json", `{"Version":"2012-10-17","Statement":[]}`)
	w.eventually("the good one ends it", func() bool { return w.status().ReloadError == "" })
}

// TestReloadTurnsAKindAround: an address that becomes another kind of
// endpoint is never closed.
func TestReloadTurnsAKindAround(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := freePort(t)
	w.config(endpointToml(a, "app"))
	w.start()
	dialIMDS(t, a)
	w.config("[[endpoint]]\nkind = 'container'\nlisten = '" + a + "'\n")
	w.must(control.MethodReload, nil, nil)
	w.eventually("it answers as a container endpoint", func() bool {
		conn, err := net.Dial("tcp", a)
		if err != nil {
			t.Fatalf("the address was closed: %v", err)
		}
		_ = conn.Close()
		k := &kept{t: t, host: a}
		return k.container() == 401
	})
	if e := w.status().Endpoints; len(e) != 1 || e[0].Kind != "container" {
		t.Errorf("status: %+v", e)
	}
}

// TestReloadUnderLoad: fifty reloads and a storm of SIGHUPs, and no request
// of an endpoint that stays fails; afterwards there is nothing left over.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := freePort(t), freePort(t)
	states := []string{
		endpointToml(a, "app") + endpointToml(b, "two"),
		endpointToml(a, "app") + "hosts = ['x.test']\n",
		"[log]\nformat = 'text'\n" + endpointToml(a, "app") + "[[endpoint]]\nkind = 'container'\nlisten = '" + b + "'\n",
	}
	w.config(states[0])
	w.start()
	dialIMDS(t, a).keyID("app")
	before, _ := w.goroutines()

	var stop atomic.Bool
	var requests, failed atomic.Int64
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			k := dialIMDS(t, a)
			for !stop.Load() {
				if i%2 == 1 { // a connection for each request
					_ = k.conn.Close()
					k = dialIMDS(t, a)
				}
				code, body, err := k.do("GET", credentialsPath+"app", "X-aws-ec2-metadata-token: "+k.token)
				requests.Add(1)
				if err != nil || code != 200 || !strings.Contains(body, "ASIAAPP") {
					failed.Add(1)
					t.Errorf("a request failed: %d %v %s", code, err, body)
					return
				}
			}
			_ = k.conn.Close()
		})
	}
	for i := range 50 {
		w.config(states[i%len(states)])
		w.must(control.MethodReload, nil, nil)
	}
	for i := range 300 {
		if i%30 == 0 {
			w.config(states[i/30%len(states)])
		}
		w.signal(syscall.SIGHUP)
	}
	w.config(states[0])
	w.must(control.MethodReload, nil, nil)
	stop.Store(true)
	wg.Wait()
	t.Logf("%d requests, %d failed", requests.Load(), failed.Load())
	if requests.Load() < 200 {
		t.Errorf("only %d requests were made", requests.Load())
	}
	if n := len(w.sts.asked("app")); n != 1 {
		t.Errorf("app's session was fetched %d times", n)
	}
	// A server keeps up to eight goroutines at rest for the next connections.
	const spare = 8 + 2
	after, which := 0, ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if after, which = w.goroutines(); after <= before+spare {
			break
		}
	}
	if after > before+spare {
		t.Errorf("%d goroutines before, %d after:\n%s", before, after, which)
	}
}

// TestReloadAppliesTheRest: the AWS files' paths, the log and what can't be
// changed.
func TestReloadAppliesTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	w.write("config/keyfob/aws", "[profile moved]\nregion = eu-north-1\n")
	w.config("data_dir = '/elsewhere'\n[aws]\nconfig_file = 'aws'\n[log]\nlevel = 'debug'\nformat = 'text'\n")
	w.env = append(w.env, "") // the data directory is named by a variable, which wins
	w.must(control.MethodReload, nil, nil)
	var list control.ListResult
	if err := w.try(control.MethodList, control.Context{Env: map[string]string{"AWS_ENDPOINT_URL": w.sts.URL, "AWS_CONFIG_FILE": w.path("config/keyfob/aws")}}, &list); err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, p := range list.Profiles {
		names += p.Name + " "
	}
	if names != "base moved " {
		t.Errorf("the profiles are %s", names)
	}
	w.eventually("the log's format changes", func() bool { return strings.Contains(w.log.String(), "level=info") })
	w.write("config/keyfob/aws", "[profile again]\n")
	w.eventually("the new file is watched", func() bool { return strings.Count(w.log.String(), "profiles read again") >= 2 })

	w.config("[keystore]\nbackend = 'pass'\n")
	if s := w.status(); s.ReloadError != "" {
		t.Errorf("status: %+v", s)
	}
}

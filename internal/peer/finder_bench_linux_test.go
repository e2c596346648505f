package peer

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// crowd starts processes that do nothing, as many as KEYFOB_TEST_CROWD says,
// so that a search can be measured on a full machine.
func crowd(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("KEYFOB_TEST_CROWD"))
	for range n {
		cmd := exec.Command("sleep", "120")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
}

// What it costs to find the process of a fresh connection, the search alone
// (the connection is made while the clock stands).
func BenchmarkFind(b *testing.B) {
	crowd(b)
	l := listen(b, "tcp4")
	connect := func(b *testing.B) (net.Conn, net.Conn) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		return c, server
	}
	measure := func(b *testing.B, r func() *Resolver) {
		r().Close()
		var took time.Duration
		b.ReportAllocs()
		for b.Loop() {
			c, server := connect(b)
			caller, err := r().Of(server)
			if err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			p, err := caller.Program(context.Background())
			took += time.Since(began)
			if err != nil || p.PID != os.Getpid() {
				b.Fatal(p, err)
			}
			c.Close()
			server.Close()
		}
		b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "find-ns/op")
	}
	for _, open := range []int{0, 100, 1000} {
		b.Run(fmt.Sprintf("known process with %d others open", open), func(b *testing.B) {
			for range open {
				c, server := connect(b)
				defer c.Close()
				defer server.Close()
			}
			r := resolver(b)
			measure(b, func() *Resolver { return r })
		})
	}
	b.Run("process never seen", func(b *testing.B) {
		var last *Resolver
		measure(b, func() *Resolver {
			if last != nil {
				last.Close()
			}
			last = NewResolver()
			return last
		})
		last.Close()
	})
	b.Run("process just started", func(b *testing.B) {
		r := resolver(b)
		var took time.Duration
		for b.Loop() {
			cmd := client(b, l, nil)
			server := accept(b, l)
			caller, err := r.Of(server)
			if err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			p, err := caller.Program(context.Background())
			took += time.Since(began)
			if err != nil || p.PID != cmd.Process.Pid {
				b.Fatal(p, err)
			}
			_ = cmd.Process.Kill()
		}
		b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "find-ns/op")
	})
	b.Run("again on one connection", func(b *testing.B) {
		c, server := connect(b)
		defer c.Close()
		defer server.Close()
		caller, err := resolver(b).Of(server)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := caller.Program(context.Background()); err != nil {
				b.Fatal(err)
			}
			if err := caller.AtHome(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

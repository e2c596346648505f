//go:build !windows

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

const smallest = `package main

import "os"

func main() { os.Stdout.WriteString(` + "`" + `{"Version":1,"AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":"0000000000000000000000000000000000000000","SessionToken":"t","Expiration":"2030-01-01T00:00:00Z"}` + "`" + `) }
`

const asker = `package main

import (
	"net"
	"os"
)

func main() {
	c, err := net.Dial("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	c.Write([]byte("{\"keyfob\":1}\n{\"id\":1,\"method\":\"version\"}\n"))
	b := make([]byte, 4096)
	n, _ := c.Read(b)
	os.Stdout.Write(b[:n])
}
`

func buildProgram(t testing.TB, name, source string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"main.go": source, "go.mod": "module " + name + "\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

// BenchmarkCredentialProcess compares a warm `keyfob credential-process` with
// the smallest Go program that prints a fixed answer, and with one that asks
// a Unix socket by package net: whole processes, one after the other in turn,
// the median of each.
func BenchmarkCredentialProcess(b *testing.B) {
	w := newWorld(b)
	keyfob := filepath.Join(w.t.TempDir(), "keyfob")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", keyfob, "keyfob/cmd/keyfob").CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	w.addKeys("base")
	w.credentials("deploy")
	programs := [][]string{
		{buildProgram(w.t, "smallest", smallest)},
		{buildProgram(w.t, "asker", asker), w.path("s")},
		{keyfob, "credential-process", "--profile", "deploy"},
	}
	times := make([][]float64, len(programs))
	env := w.environ()
	rounds := max(b.N, 200)
	for range rounds {
		for i, p := range programs {
			cmd := exec.Command(p[0], p[1:]...)
			cmd.Env = env
			begin := time.Now()
			if out, err := cmd.Output(); err != nil || len(out) == 0 {
				w.t.Fatalf("%v: %v", p, err)
			}
			times[i] = append(times[i], float64(time.Since(begin).Microseconds()))
		}
	}
	med := make([]float64, len(programs))
	for i := range times {
		slices.Sort(times[i])
		med[i] = times[i][len(times[i])/2]
	}
	b.ReportMetric(med[0], "smallest-µs")
	b.ReportMetric(med[1], "by-package-net-µs")
	b.ReportMetric(med[2], "keyfob-µs")
	b.ReportMetric(med[1]/med[0], "by-package-net/smallest")
	b.ReportMetric(med[2]/med[0], "keyfob/smallest")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkReady is the time from the start of keyfobd to its word that every
// listener accepts.
func BenchmarkReady(b *testing.B) {
	w := newWorld(b)
	w.write("config/keyfob/config.toml", imdsToml)
	w.addKeys("base")
	w.must(nil, "stop")
	w.waitStopped()
	var times []float64
	for range max(b.N, 20) {
		r, wr, err := os.Pipe()
		if err != nil {
			w.t.Fatal(err)
		}
		cmd := w.command(filepath.Join(bin, "keyfobd"), "run")
		cmd.Env = append(cmd.Env, "KEYFOB_READY_FD=3")
		cmd.ExtraFiles = []*os.File{wr}
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		wr.Close()
		line, _ := bufio.NewReader(r).ReadString('\n')
		times = append(times, float64(time.Since(begin).Microseconds())/1000)
		r.Close()
		if line != "ok\n" {
			w.t.Fatalf("the daemon said %q", line)
		}
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2], "median-ms")
	b.ReportMetric(times[len(times)-1], "max-ms")
	b.ReportMetric(0, "ns/op")
}

func (w *world) waitStopped() {
	if pid := w.daemonPID(); pid != 0 {
		w.gone(pid)
	}
}

// BenchmarkIdleMemory is the resident size of a daemon that knows 1,000
// profiles, has served some, and idles.
func BenchmarkIdleMemory(b *testing.B) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		b.Skip("there is no /proc to read it from")
	}
	w := newWorld(b)
	var conf strings.Builder
	conf.WriteString(w.read(".aws/config"))
	for i := range 1000 {
		arn := w.aws.AddRole(fakeaws.RoleSpec{Account: "222222222222", Name: fmt.Sprintf("r%d", i)})
		fmt.Fprintf(&conf, "[profile r%d]\nregion = eu-west-1\noutput = json\nrole_arn = %s\nsource_profile = base\nrole_session_name = somebody\nduration_seconds = 3600\n\n", i, arn)
	}
	w.write(".aws/config", conf.String())
	w.write("config/keyfob/config.toml", imdsToml)
	w.addKeys("base")
	w.credentials("deploy")
	w.must(nil, "list")
	w.must(nil, "explain", "r500")
	rss := func(key string) float64 {
		bts, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemonPID()))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, line := range strings.Split(string(bts), "\n") {
			if v, ok := strings.CutPrefix(line, key+":"); ok {
				n, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
				return n / 1024
			}
		}
		return 0
	}
	time.Sleep(3 * time.Second) // idle is a state, and it takes a moment
	b.ReportMetric(rss("VmRSS"), "resident-MiB")
	b.ReportMetric(rss("RssAnon"), "anonymous-MiB")
	b.ReportMetric(rss("VmHWM"), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

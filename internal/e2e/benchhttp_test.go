//go:build !windows

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const credentialsPath = "/latest/meta-data/iam/security-credentials/deploy"

// side is one of two servers that are compared: keyfobd, or net/http with
// fixed bytes, each a process of its own.
type side struct {
	address, token string
	pid            int
}

// sides starts both: a real keyfobd with a passphrase vault, rules, audit log
// and all, and the fixed server with an answer of the same length.
func sides(b *testing.B) (ours, theirs *side) {
	w := newWorld(b)
	w.write("config/keyfob/config.toml", imdsToml)
	w.addKeys("base")
	w.credentials("deploy")
	ours = &side{address: strings.TrimPrefix(w.imds(), "http://"), pid: w.daemonPID()}
	_, token, err := fetch(httpClient(false), "PUT", "http://"+ours.address+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "21600")
	if err != nil {
		b.Fatal(err)
	}
	ours.token = string(token)
	status, body, err := fetch(httpClient(false), "GET", "http://"+ours.address+credentialsPath, "X-aws-ec2-metadata-token", ours.token)
	if err != nil || status != 200 {
		b.Fatal(status, err)
	}
	cmd := exec.Command(filepath.Join(bin, "probe"), "serve", strconv.Itoa(len(body)))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return ours, &side{address: strings.TrimSpace(line), token: ours.token, pid: cmd.Process.Pid}
}

// cpu is the processor time that the server has used, 0 where there is no
// /proc. It counts in hundredths of a second (proc_pid_stat(5)).
func (s *side) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte(") "))
	f := strings.Fields(string(rest))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (s *side) request(method, path, header string) []byte {
	return []byte(method + " " + path + " HTTP/1.1\r\nHost: " + s.address + "\r\nUser-Agent: bench\r\n" + header + "\r\n\r\n")
}

// keptCaller writes fixed bytes and reads as many as the first answer had:
// it costs next to nothing.
type keptCaller struct {
	c       net.Conn
	request []byte
	buf     []byte
}

func (s *side) dial(b *testing.B) *keptCaller {
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	k := &keptCaller{c: c, request: s.request("GET", credentialsPath, "X-aws-ec2-metadata-token: "+s.token)}
	if _, err := c.Write(k.request); err != nil {
		b.Fatal(err)
	}
	var got bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, &got)), nil)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != 200 {
		b.Fatal(resp.StatusCode, err)
	}
	k.buf = make([]byte, got.Len())
	return k
}

func (k *keptCaller) call() error {
	if _, err := k.c.Write(k.request); err != nil {
		return err
	}
	_, err := io.ReadFull(k.c, k.buf)
	return err
}

// fresh asks for a token, the list and the credentials, each over a
// connection of its own.
func (s *side) fresh() error {
	for _, r := range [][]byte{
		s.request("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: 0"),
		s.request("GET", "/latest/meta-data/iam/security-credentials/", "X-aws-ec2-metadata-token: "+s.token),
		s.request("GET", credentialsPath, "X-aws-ec2-metadata-token: "+s.token),
	} {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return err
		}
		_, err = c.Write(r)
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(bufio.NewReader(c), nil)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != 200 {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		_ = c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// compareSides runs both in turns, so that a busy machine is busy for both,
// and reports our rate as a share of theirs: the median of the rounds', and by
// the processor time that the servers took.
func compareSides(b *testing.B, ours, theirs *side, calls int, run func(*side) []time.Duration) {
	var ratios []float64
	var cpu [2]time.Duration
	var took [2][]time.Duration
	both := [2]*side{ours, theirs}
	for _, s := range both {
		run(s)
	}
	for i := range max(b.N, 20) {
		var wall [2]time.Duration
		for turn := range 2 {
			which := (i + turn) % 2
			before, began := both[which].cpu(), time.Now()
			took[which] = append(took[which], run(both[which])...)
			wall[which] = time.Since(began)
			cpu[which] += both[which].cpu() - before
		}
		ratios = append(ratios, float64(wall[1])/float64(wall[0]))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(ratios[len(ratios)/10], "ratio-p10")
	if cpu[0] > 0 {
		b.ReportMetric(float64(cpu[1])/float64(cpu[0]), "ratio-of-server-cpu")
	}
	var p99 [2]float64
	for i, name := range []string{"ours", "theirs"} {
		slices.Sort(took[i])
		n := len(took[i])
		p99[i] = float64(took[i][n*99/100].Nanoseconds()) / 1000
		b.ReportMetric(float64(took[i][n/2].Nanoseconds())/1000, "p50-µs/"+name)
		b.ReportMetric(p99[i], "p99-µs/"+name)
		b.ReportMetric(float64(cpu[i].Nanoseconds())/1000/float64(n*calls), "server-µs/"+name)
	}
	b.ReportMetric(p99[0]/p99[1], "p99-ratio")
	b.ReportMetric(0, "ns/op")
}

// together has callers do n things each at once, and tells how long each took.
func together(b *testing.B, callers, n int, do func(caller int) error) []time.Duration {
	var mu sync.Mutex // guards took
	var took []time.Duration
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			mine := make([]time.Duration, 0, n)
			for range n {
				began := time.Now()
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return took
}

// BenchmarkDaemonKept compares credentials over eight kept connections: a
// real keyfobd with a fixed-bytes server, both processes of their own.
func BenchmarkDaemonKept(b *testing.B) {
	ours, theirs := sides(b)
	conns := map[*side][]*keptCaller{}
	for _, s := range []*side{ours, theirs} {
		for range 8 {
			conns[s] = append(conns[s], s.dial(b))
		}
	}
	compareSides(b, ours, theirs, 1, func(s *side) []time.Duration {
		return together(b, 8, 300, func(i int) error { return conns[s][i].call() })
	})
}

// BenchmarkDaemonFresh compares token, list and credentials, each over a
// fresh connection, by two callers at once.
func BenchmarkDaemonFresh(b *testing.B) {
	ours, theirs := sides(b)
	compareSides(b, ours, theirs, 3, func(s *side) []time.Duration {
		return together(b, 2, 60, func(int) error { return s.fresh() })
	})
}

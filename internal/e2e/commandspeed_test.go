//go:build !windows

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// rawAsker is the smallest program that asks the daemon for its status: one
// connection, one write, one read, without package net.
const rawAsker = `package main

import (
	"os"
	"syscall"
)

func main() {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: os.Args[1]})
	}
	if err != nil {
		os.Exit(1)
	}
	syscall.Write(fd, []byte("{\"keyfob\":1}\n{\"id\":1,\"method\":\"status\",\"params\":{}}\n"))
	b := make([]byte, 1<<16)
	n, _ := syscall.Read(fd, b)
	os.Stdout.Write(b[:n])
}
`

// manyProfiles is a config file of 10,000 lines and 1,000 profiles.
func manyProfiles() string {
	var b strings.Builder
	b.WriteString("[profile user]\nregion = eu-west-1\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = s\n\n")
	for i := range 999 {
		fmt.Fprintf(&b, "# team %d\n[profile team-%d]\nregion = eu-west-1\noutput = json\nrole_arn = arn:aws:iam::%012d:role/developer\nsource_profile = user\nmfa_serial = arn:aws:iam::123456789012:mfa/u\ns3 =\n  addressing_style = path\n\n", i, i, i)
	}
	return b.String()
}

// BenchmarkCommands compares commands that only ask the daemon with the
// smallest program that does, and shows what completion, list and explain
// take with 1,000 profiles: whole processes in turn, the median of each.
func BenchmarkCommands(b *testing.B) {
	w := newWorld(b)
	w.write(".aws/config", manyProfiles())
	keyfob := filepath.Join(b.TempDir(), "keyfob")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", keyfob, "keyfob/cmd/keyfob").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	w.must(nil, "status")
	programs := []struct {
		name    string
		command []string
		env     []string
	}{
		{"smallest", []string{buildProgram(b, "rawasker", rawAsker), w.path("s")}, nil},
		{"status", []string{keyfob, "status", "--json"}, nil},
		{"grants", []string{keyfob, "grant", "list", "--json"}, nil},
		{"list", []string{keyfob, "list"}, nil},
		{"explain", []string{keyfob, "explain", "team-500"}, nil},
		// As a shell has it, without a socket that is named.
		{"complete", []string{keyfob, "__complete", "exec", "team-5"}, []string{"KEYFOB_SOCKET=", "XDG_RUNTIME_DIR=" + w.home}},
	}
	w.write("keyfob/keyfob.sock", "")
	times := make([][]float64, len(programs))
	for range max(b.N, 60) {
		for i, p := range programs {
			cmd := exec.Command(p.command[0], p.command[1:]...)
			cmd.Env = w.environ(p.env...)
			begin := time.Now()
			if out, err := cmd.Output(); err != nil || len(out) == 0 {
				b.Fatalf("%v: %v", p.command, err)
			}
			times[i] = append(times[i], float64(time.Since(begin).Microseconds())/1000)
		}
	}
	for i, p := range programs {
		slices.Sort(times[i])
		median := times[i][len(times[i])/2]
		b.ReportMetric(median, p.name+"-ms")
		if p.name == "status" || p.name == "grants" {
			b.ReportMetric(median/times[0][len(times[0])/2], p.name+"/smallest")
		}
	}
	b.ReportMetric(0, "ns/op")
}

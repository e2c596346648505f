//go:build !windows

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/fakeaws"
)

// jobArg makes this binary a job that asks who it is all along.
const jobArg = "go-job"

// goJob asks the STS at its next argument who it is, until its standard input
// ends: each time with an SDK that was set up anew, as a new process would,
// and with one that it keeps. A line for each answer.
func goJob(args []string) int {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	}()
	ctx := context.Background()
	var kept *sts.Client
	for {
		for _, fresh := range []bool{true, false} {
			client := kept
			if fresh || kept == nil {
				cfg, err := config.LoadDefaultConfig(ctx)
				if err != nil {
					fmt.Println("error", err)
					continue
				}
				client = sts.NewFromConfig(cfg, func(o *sts.Options) { o.BaseEndpoint = &args[0] })
			}
			if kept == nil {
				kept = client
			}
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			out, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
			cancel()
			if err != nil {
				fmt.Println("error", strings.Join(strings.Fields(err.Error()), " "))
			} else {
				fmt.Println(*out.Arn)
			}
		}
		select {
		case <-ended:
			return 0
		case <-time.After(50 * time.Millisecond): // a job's own work
		}
	}
}

const botoJob = `
import sys, time, threading, boto3
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
kept = boto3.client("sts", endpoint_url=sys.argv[1])
while not ended.is_set():
    for client in (kept, None):
        try:
            client = client or boto3.Session().client("sts", endpoint_url=sys.argv[1])
            print(client.get_caller_identity()["Arn"], flush=True)
        except Exception as e:
            print("error", str(e).replace("\n", " "), flush=True)
    ended.wait(0.1)
`

// job is a program that runs under exec and tells who it is.
type job struct {
	name  string
	cmd   *exec.Cmd
	end   func() // closes its standard input
	lines chan string
	said  []string
}

// startJob runs a job under `keyfob exec deploy`, with keyfob at the path.
func (w *world) startJob(keyfob, name string, args ...string) *job {
	w.t.Helper()
	cmd := exec.Command(keyfob, append([]string{"exec", "deploy", "--"}, args...)...)
	cmd.Env = w.environ("PYENV_ROOT="+os.Getenv("PYENV_ROOT"), "AWS_ACCESS_KEY_ID="+w.env["TEST_OTHER_ID"], "AWS_SECRET_ACCESS_KEY="+w.env["TEST_OTHER_SECRET"], "AWS_PROFILE=default")
	cmd.Dir = w.home
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	j := &job{name: name, cmd: cmd, end: func() { _ = in.Close() }, lines: make(chan string, 100000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(j.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			j.lines <- s.Text()
		}
	}()
	w.t.Cleanup(func() {
		j.end()
		kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		<-done
		_ = cmd.Wait()
	})
	return j
}

// good waits for n more answers that are deploy's, and takes all others.
func (j *job) good(t *testing.T, n int) {
	t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	for n > 0 {
		select {
		case line, ok := <-j.lines:
			if !ok {
				t.Fatalf("%s has ended: %q", j.name, j.said)
			}
			j.said = append(j.said, line)
			if strings.Contains(line, asDeploy) {
				n--
			}
		case <-limit.C:
			t.Fatalf("%s has said no more than %q", j.name, j.said[max(0, len(j.said)-10):])
		}
	}
}

// buildVersion builds keyfob and keyfobd of a version, beside the helpers.
func buildVersion(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", dir+"/", "keyfob/cmd/keyfob", "keyfob/cmd/keyfobd")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"keyfob-keyring", "keyfob-signin"} {
		if err := os.Symlink(filepath.Join(bin, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestAJobSeesOneIdentity: whatever becomes of the daemon, a job under exec
// that asks all along is never anybody but its profile, though static keys
// that work are in [default] and in the environment around.
func TestAJobSeesOneIdentity(t *testing.T) {
	t.Parallel()
	old, newer := buildVersion(t, "1.4.0"), buildVersion(t, "1.5.0")
	w := newWorld(t)
	w.env["PATH"] = old + ":" + os.Getenv("PATH")
	id, secret := w.aws.AddUser(fakeaws.UserSpec{Name: "mallory"})
	env, envSecret := w.aws.AddUser(fakeaws.UserSpec{Name: "trudy"})
	w.env["TEST_OTHER_ID"], w.env["TEST_OTHER_SECRET"] = env, envSecret
	w.write(".aws/credentials", fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", id, secret))
	by := func(dir string, args ...string) result {
		t.Helper()
		cmd := w.command(filepath.Join(dir, "keyfob"), args...)
		r := w.finish(cmd)
		if r.code != 0 {
			t.Fatalf("%v: exit %d, %s", args, r.code, r.err)
		}
		return r
	}
	add := w.command(filepath.Join(old, "keyfob"), "add", "base")
	add.Stdin = strings.NewReader(string(w.keysJSON()))
	if r := w.finish(add); r.code != 0 {
		t.Fatalf("exit %d, %s", r.code, r.err)
	}
	keyfob := filepath.Join(old, "keyfob")
	jobs := []*job{w.startJob(keyfob, "the Go SDK", os.Args[0], jobArg, w.url)}
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if why := pythonHas(python)(); why != "" {
			t.Log("skipped: " + why)
			continue
		}
		jobs = append(jobs, w.startJob(keyfob, "boto3 of "+python, python, "-c", botoJob, w.url))
	}
	all := func(n int) {
		t.Helper()
		for _, j := range jobs {
			j.good(t, n)
		}
	}
	all(4)

	first := w.daemonPID()
	for range 2 { // killed, and nobody starts it for a while
		w.killDaemon()
		time.Sleep(300 * time.Millisecond) // the jobs go on asking
		by(old, "status")
		all(4)
	}
	second := w.daemonPID()
	if second == first || second == 0 {
		t.Fatalf("the daemon is %d, and was %d", second, first)
	}
	if v := by(newer, "status", "--json").out; !strings.Contains(v, `"1.5.0"`) {
		t.Errorf("after the upgrade: %s", v)
	}
	if third := w.daemonPID(); third == second {
		t.Errorf("the older daemon was not replaced")
	}
	all(4)
	w.killDaemon()
	by(newer, "credential-process", "--profile", "deploy")
	all(4)

	for _, j := range jobs {
		j.end()
	}
	for _, j := range jobs {
		end := time.AfterFunc(30*time.Second, func() { _ = j.cmd.Process.Signal(syscall.SIGKILL) })
		for line := range j.lines {
			j.said = append(j.said, line)
		}
		end.Stop()
		wrong, failed := 0, 0
		for _, line := range j.said {
			switch {
			case strings.HasPrefix(line, "error "):
				if failed++; failed == 1 {
					t.Logf("%s: %.300s", j.name, line)
				}
			case !strings.Contains(line, asDeploy):
				if wrong++; wrong == 1 {
					t.Errorf("%s was %s", j.name, line)
				}
			}
		}
		t.Logf("%s: %d answers, %d errors while no daemon ran, %d of another", j.name, len(j.said), failed, wrong)
	}
	for _, call := range w.aws.Calls() {
		if call.AccessKey == id || call.AccessKey == env {
			t.Errorf("%s was signed with the keys of [default] or of the environment", call.Action)
		}
	}
	eventually(t, "the grants are revoked", func() bool {
		return !strings.Contains(by(newer, "grant", "list", "--json").out, `"id"`)
	})
	// The daemon is the newer one's to stop.
	w.env["PATH"] = newer + ":" + os.Getenv("PATH")
}

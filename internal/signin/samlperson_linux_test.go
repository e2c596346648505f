package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cdptarget "github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const testRole = "arn:aws:iam::444455556666:role/Reader"

// person is a session in which a real browser, without a window, can be
// driven.
type person struct {
	*desk
	data string // the browser's directory
	// witnessed are the arguments that processes had while a sign-in ran.
	witnessed []byte
}

func newPerson(t *testing.T) *person {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "google-chrome-stable", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("skipped: chromium is not installed")
	}
	p := &person{desk: newDesk(t)}
	p.data = filepath.Join(p.dir, "data", "browser")
	p.program("chromium", "PATH=/usr/local/bin:/usr/bin:/bin exec "+program+` "$@"`+"\n")
	t.Cleanup(func() {
		if left := p.browsers(); len(left) > 0 {
			out, _ := exec.Command("ps", "-o", "pid,ppid,pgid,sid,stat,args", "-p", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(left)), ","), "[]")).Output()
			t.Errorf("browsers are left: %.600s", out)
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			p.eventually("they end", func() bool { return len(p.browsers()) == 0 })
		}
	})
	return p
}

// browsers are the processes of this test's browsers: its directory is in
// their arguments, or in their environment.
func (p *person) browsers() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		exe, err := os.Readlink(dir + "/exe")
		if err != nil || !strings.Contains(exe, "chrom") {
			continue
		}
		args, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		if bytes.Contains(args, []byte(p.dir)) || bytes.Contains(env, []byte("DIR="+p.dir)) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

func (p *person) eventually(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	p.t.Fatalf("it never came to this: %s", what)
}

// request is one for a sign-in without a window; change may change it.
func (p *person) request(url, endpoint string, change func(*samlRequest)) string {
	p.t.Helper()
	q := samlRequest{Profile: "dev", URL: url, SAMLEndpoint: endpoint, BrowserDir: p.data, Headless: true, TimeoutSeconds: 40,
		BrowserArgs: []string{"--no-sandbox", "--disable-gpu", "--disable-quic", "--proxy-server=direct://"}}
	if change != nil {
		change(&q)
	}
	b, err := json.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// visit is a sign-in under way.
type visit struct {
	p         *person
	cmd       *exec.Cmd
	out, errs bytes.Buffer
	begin     time.Time
}

// start starts keyfob-signin saml. It and its browser end with the test.
func (p *person) start(request string) *visit {
	p.t.Helper()
	v := &visit{p: p, cmd: p.command("saml", request), begin: time.Now()}
	v.cmd.Stdout, v.cmd.Stderr = &v.out, &v.errs
	if err := v.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if v.cmd.ProcessState == nil {
			_ = v.cmd.Process.Kill()
			_ = v.cmd.Wait()
		}
	})
	return v
}

// end waits for its end, and looks meanwhile at what every process has in
// its arguments.
func (v *visit) end() result {
	v.p.t.Helper()
	ended := make(chan struct{})
	go func() { defer close(ended); _ = v.cmd.Wait() }()
	kill := time.AfterFunc(60*time.Second, func() { _ = v.cmd.Process.Kill() })
	defer kill.Stop()
	for {
		for _, pid := range append(v.p.browsers(), v.cmd.Process.Pid) {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			v.p.witnessed = append(v.p.witnessed, b...)
		}
		select {
		case <-ended:
			return result{v.cmd.ProcessState.ExitCode(), v.out.String(), v.errs.String(), time.Since(v.begin)}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// signIn is start and end.
func (p *person) signIn(request string) result {
	p.t.Helper()
	return p.start(request).end()
}

// assertion is the one in an answer.
func (r result) assertion(t *testing.T) string {
	t.Helper()
	var a samlAnswer
	if err := json.Unmarshal([]byte(r.out), &a); r.code != exitDone || err != nil || a.Refused || a.Assertion == "" || r.errs != "" || !strings.HasSuffix(r.out, "}\n") {
		t.Fatalf("exit code %d, %.200q, %q", r.code, r.out, r.errs)
	}
	return a.Assertion
}

// withPort lets the test drive the browser too, as a person's hands do.
func withPort(q *samlRequest) { q.BrowserArgs = append(q.BrowserArgs, "--remote-debugging-port=0") }

// hands are the person at the browser, whose page is at url: they do actions.
func (p *person) hands(url string, actions ...chromedp.Action) {
	p.t.Helper()
	port := filepath.Join(p.data, "DevToolsActivePort")
	var address string
	p.eventually("the browser listens", func() bool {
		b, _ := os.ReadFile(port)
		number, path, ok := strings.Cut(strings.TrimSpace(string(b)), "\n")
		address = "ws://127.0.0.1:" + number + path
		if !ok {
			return false
		}
		c, err := net.Dial("tcp", "127.0.0.1:"+number) // the file may be of an earlier one
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	// What ends these contexts closes the page: not before the test's end.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	p.t.Cleanup(cancel)
	ctx, release := chromedp.NewRemoteAllocator(ctx, address, chromedp.NoModifyURL)
	p.t.Cleanup(release)
	first, done := chromedp.NewContext(ctx)
	p.t.Cleanup(done)
	var id cdptarget.ID
	p.eventually("the page is there", func() bool {
		all, err := chromedp.Targets(first)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, t := range all {
			if t.Type == "page" && strings.HasPrefix(t.URL, url) {
				id = t.TargetID
			}
		}
		return id != ""
	})
	page, leave := chromedp.NewContext(first, chromedp.WithTargetID(id))
	p.t.Cleanup(leave)
	if err := chromedp.Run(page, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// screen gives the session a display that nobody sees.
func (p *person) screen() {
	p.t.Helper()
	path, err := exec.LookPath("Xvfb")
	if err != nil {
		p.t.Skip("skipped: Xvfb is not installed")
	}
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(path, "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the death signal comes when the thread ends
	p.t.Cleanup(runtime.UnlockOSThread)
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = r.Close() })
	_ = w.Close()
	var b [16]byte
	n, err := r.Read(b[:])
	if err != nil {
		p.t.Fatal("Xvfb gives no display")
	}
	p.set("DISPLAY=:" + strings.TrimSpace(string(b[:n])))
}

func provider(t *testing.T, mode fakeaws.SignInMode, change func(*fakeaws.SAMLSpec)) (*fakeaws.Server, string) {
	t.Helper()
	aws, url := fakeawstest.Start(t)
	spec := fakeaws.SAMLSpec{Roles: []string{testRole}, ACS: url + "/saml"}
	if change != nil {
		change(&spec)
	}
	aws.AddSAML(spec)
	aws.SetSignIn(fakeaws.SignInSAML, mode)
	return aws, url
}

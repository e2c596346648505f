package peer

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The metadata address is no loopback address, and a container with a
// network of its own reaches it through a veth. Both are tried in a network
// namespace of the test's own, so that the machine's stays as it is.
func TestOwnAddressAndAnotherNetworkNamespace(t *testing.T) {
	if os.Getenv("KEYFOB_TEST_NETNS") != "" {
		insideNetworkNamespace(t)
		return
	}
	needRoot(t)
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s: needs %s", t.Name(), tool)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=30s")
	cmd.Env = append(os.Environ(), "KEYFOB_TEST_NETNS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s: this machine does not permit it: %v\n%s", t.Name(), err, out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func insideNetworkNamespace(t *testing.T) {
	run := func(command string) {
		t.Helper()
		args := strings.Fields(command)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", command, err, out)
		}
	}
	run("ip link set lo up")
	run("ip addr add 169.254.169.254/32 dev lo")
	r := resolver(t)
	l, err := net.Listen("tcp4", "169.254.169.254:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own, err := net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if got, err := r.Of(accept(t, l)); err != nil || got.UID != Self() {
		t.Errorf("own metadata address: %+v, %v", got, err)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	container := exec.Command(self)
	container.Env = []string{"KEYFOB_TEST_DIAL=tcp4|169.254.169.254:80", "KEYFOB_TEST_WAIT=1", "GORACE=atexit_sleep_ms=0"}
	container.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := container.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := container.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = container.Wait()
	}()
	pid := strconv.Itoa(container.Process.Pid)
	run("ip link add keyfob0 type veth peer name keyfob1")
	run("ip link set keyfob1 netns " + pid)
	run("ip addr add 198.51.100.1/24 dev keyfob0")
	run("ip link set keyfob0 up")
	inside := "nsenter -t " + pid + " -n "
	run(inside + "ip addr add 198.51.100.2/24 dev keyfob1")
	run(inside + "ip link set keyfob1 up")
	run(inside + "ip route add default via 198.51.100.1")
	if _, err := stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	c := accept(t, l)
	if !strings.HasPrefix(c.RemoteAddr().String(), "198.51.100.2:") {
		t.Fatalf("the client came from %s", c.RemoteAddr())
	}
	if got, err := r.Of(c); !errors.Is(err, ErrUnidentified) || got != (Caller{}) {
		t.Errorf("another network namespace: %+v, %v", got, err)
	}
}

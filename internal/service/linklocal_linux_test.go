package service

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func nobodyAnswers(context.Context, string, string) (net.Conn, error) {
	return nil, syscall.ECONNREFUSED
}

// nowhere keeps what is real on this machine out of the tests.
func nowhere(netip.Addr) (string, error) { return "", nil }

// linkLocalWorld is a machine with a fake systemctl, root's, on which alice
// ran sudo; the user is whoever runs the test, under that name.
func linkLocalWorld(t *testing.T) (*world, *LinkLocalConfig) {
	w := newWorld(t, true)
	c := &LinkLocalConfig{Config: w.c, User: "root", IPv4Only: true, dial: nobodyAnswers, interfaceOf: nowhere}
	c.System = false
	return w, c
}

func mustLinkLocal(t *testing.T, c *LinkLocalConfig) *linkLocal {
	t.Helper()
	l, err := newLinkLocal(*c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func enable(t *testing.T, c *LinkLocalConfig) error {
	p, err := mustLinkLocal(t, c).planEnable(t.Context(), nil)
	if err != nil {
		return err
	}
	return p.run(t.Context())
}

func TestLinkLocalIsEnabledAndDisabled(t *testing.T) {
	w, c := linkLocalWorld(t)
	if err := enable(t, c); err != nil {
		t.Fatal(err)
	}
	units := []string{"etc/systemd/system/keyfob-imds.service", "etc/systemd/system/keyfob-imds.socket", "etc/systemd/system/keyfob-link-local.service"}
	if got := w.files(); !slices.Equal(got, units) {
		t.Errorf("files %q", got)
	}
	want := []string{"daemon-reload", "reenable keyfob-link-local.service keyfob-imds.socket", "restart keyfob-link-local.service", "start keyfob-imds.socket keyfob-imds.service"}
	if got := w.log(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	w.set("enabled", "") // reenable is this fake's enable
	if p, err := mustLinkLocal(t, c).planEnable(t.Context(), nil); err != nil || !p.Empty() {
		t.Errorf("a second enable: %v %v", p, err)
	}
	s, err := mustLinkLocal(t, c).status(t.Context())
	if err != nil || !s.Enabled || !s.Active || s.User != "root" || s.Problem != "" || len(s.Addresses) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	// A half-done one is mended.
	for _, f := range units {
		path := filepath.Join(w.root, f)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := mustLinkLocal(t, c).status(t.Context()); filepath.Base(f) == imdsSocketUnit && (err != nil || s.Problem == "") {
			t.Errorf("an empty %s is not seen: %+v, %v", f, s, err)
		}
		if err := enable(t, c); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(path); err != nil || len(b) == 0 {
			t.Errorf("%s was not mended: %v", f, err)
		}
	}
	// For the machine's daemon, what hands over goes.
	w.set("load", "loaded")
	w.log()
	c.User, c.System = "", true
	if err := enable(t, c); err != nil {
		t.Fatal(err)
	}
	if got := w.files(); !slices.Equal(got, units[1:]) {
		t.Errorf("files for the machine's daemon: %q", got)
	}
	if told := w.log(); !slices.Contains(told, "stop keyfob.socket keyfob.service") || told[len(told)-1] != "start keyfob.socket keyfob.service" {
		t.Errorf("the daemon is not started anew: %q", told)
	}
	p, err := mustLinkLocal(t, c).planDisable(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.runAll(t.Context()); err != nil {
		t.Error(err)
	}
	if got := w.files(); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	if p, err := mustLinkLocal(t, c).planDisable(t.Context(), nil); err != nil || !p.Empty() {
		t.Errorf("a second disable: %v %v", p, err)
	}
}

func TestLinkLocalFailuresLeaveNothing(t *testing.T) {
	for _, what := range []string{"reenable|Failed to enable: Read-only file system", "restart|Job for keyfob-link-local.service failed because the control process exited",
		"start|Job for keyfob-imds.socket failed."} {
		w, c := linkLocalWorld(t)
		w.set("fail", what)
		err := enable(t, c)
		wantError(t, err, "cannot ")
		if got := w.files(); len(got) != 0 {
			t.Errorf("%s: left %q", what, got)
		}
		if w.has("active") || w.has("enabled") {
			t.Errorf("%s: something is left on: %q", what, w.log())
		}
	}
}

func TestLinkLocalWithoutPrivilege(t *testing.T) {
	_, c := linkLocalWorld(t)
	c.Root, c.UID = "", 1234
	c.Program = "/opt/keyfob/keyfobd"
	_, err := mustLinkLocal(t, c).planEnable(t.Context(), []string{"--user", "root"})
	wantError(t, err, "takes root")
	var e *Error
	if errors.As(err, &e); e.Hint() != "sudo /opt/keyfob/keyfob link-local enable --user root" {
		t.Errorf("hint %q", e.Hint())
	}
}

func TestLinkLocalWhose(t *testing.T) {
	w, c := linkLocalWorld(t)
	c.User = ""
	_, err := mustLinkLocal(t, c).planEnable(t.Context(), nil)
	wantError(t, err, "whose keyfobd")
	c.Getenv = func(name string) string { return map[string]string{"SUDO_USER": "daemon"}[name] }
	if who, err := mustLinkLocal(t, c).choose(t.Context()); err != nil || who != "daemon" {
		t.Errorf("%q, %v", who, err)
	}
	// The machine's daemon, where it is enabled, comes before who ran sudo.
	w.set("load", "loaded")
	w.set("enabled", "")
	if who, err := mustLinkLocal(t, c).choose(t.Context()); err != nil || who != "" {
		t.Errorf("%q, %v", who, err)
	}
	c.User = "no-such-user"
	_, err = mustLinkLocal(t, c).choose(t.Context())
	wantError(t, err, "no such user")
}

// write puts a file below root.
func (w *world) write(path, text string) {
	w.t.Helper()
	path = filepath.Join(w.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func TestCloudsAreKnown(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"sys_vendor", "Amazon EC2\n", "Amazon EC2"},
		{"bios_version", "4.11.amazon\n", "Amazon EC2"},
		{"product_name", "Google Compute Engine\n", "Google Cloud"},
		{"chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", "Azure"},
		{"product_name", "OpenStack Nova\n", "OpenStack"},
		{"sys_vendor", "DigitalOcean\n", "DigitalOcean"},
		{"sys_vendor", "Hetzner\n", "Hetzner"},
		{"chassis_asset_tag", "OracleCloud.com\n", "Oracle Cloud"},
		{"sys_vendor", "Alibaba Cloud\n", "Alibaba Cloud"},
		// Laptops and local virtual machines.
		{"sys_vendor", "Google\n", ""},
		{"sys_vendor", "Microsoft Corporation\n", ""},
		{"sys_vendor", "QEMU\n", ""},
		{"sys_vendor", "LENOVO\n", ""},
	} {
		w, lc := linkLocalWorld(t)
		w.write("sys/class/dmi/id/"+c.file, c.text)
		if got := cloudOf(w.root); got != c.want {
			t.Errorf("%s %q is taken for %q", c.file, c.text, got)
		}
		if c.want == "" {
			continue
		}
		wantError(t, enable(t, lc), "machine of "+c.want)
		if got := w.files(); len(got) != 1 {
			t.Errorf("%s: left %q", c.want, got)
		}
		// Nor at a boot, in an image that was copied there.
		wantError(t, mustLinkLocal(t, lc).up(t.Context(), nil), "machine of "+c.want)
		lc.Force = true
		if err := enable(t, lc); err != nil {
			t.Errorf("--force: %v", err)
		}
	}
	w, _ := linkLocalWorld(t)
	w.write("sys/hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef\n")
	if got := cloudOf(w.root); got != "Amazon EC2" {
		t.Errorf("a paravirtual machine of EC2 is taken for %q", got)
	}
}

func TestWhatAnswersIsLeftAlone(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 1\r\n\r\n":                "Amazon EC2 answers",
		"HTTP/1.1 401 Unauthorized\r\nServer: EC2ws\r\n\r\n":                                "Amazon EC2 answers",
		"HTTP/1.1 405 Method Not Allowed\r\nMetadata-Flavor: Google\r\n\r\n":                "Google Cloud answers",
		"HTTP/1.1 400 Bad Request\r\nServer: Microsoft-IIS/10.0\r\n\r\n":                    "Azure answers",
		"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nMetadata-Flavor-Not: x\r\n\r\nMetadata": "some other service answers",
		"": "some other service answers",
	} {
		_, c := linkLocalWorld(t)
		asked := make(chan string, 1)
		c.dial = func(_ context.Context, _, address string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				b := make([]byte, 4096)
				n, _ := theirs.Read(b)
				asked <- string(b[:n])
				_, _ = theirs.Write([]byte(answer))
				_ = theirs.Close()
			}()
			return ours, nil
		}
		wantError(t, enable(t, c), want)
		var q string
		select {
		case q = <-asked:
		case <-time.After(5 * time.Second):
			t.Fatal("nobody was asked")
		}
		if !strings.HasPrefix(q, "PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n") || !strings.Contains(q, "\r\nMetadata-Flavor: Google\r\n") {
			t.Errorf("asked %q", q)
		}
	}
	// The address on another interface.
	_, c := linkLocalWorld(t)
	c.interfaceOf = func(netip.Addr) (string, error) { return "keyfob-none0", nil }
	wantError(t, enable(t, c), "interface keyfob-none0 has that address")

	w, c := linkLocalWorld(t)
	w.write("sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n")
	c.dial = func(_ context.Context, _, address string) (net.Conn, error) {
		if address != azureWire {
			return nil, syscall.EHOSTUNREACH
		}
		ours, _ := net.Pipe()
		return ours, nil
	}
	wantError(t, enable(t, c), "machine of Azure")
}

func TestConflictsAreNamed(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	line := func(local, state string) string {
		return head + "   0: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n"
	}
	for _, c := range []struct{ file, text, want string }{
		{"proc/net/tcp", line("FEA9FEA9:0050", "0A"), "nginx (pid 77) listens at 169.254.169.254:80"},
		{"proc/net/tcp", line("00000000:0050", "0A"), "nginx (pid 77) listens at port 80 of every address"},
		{"proc/net/tcp6", line("00000000000000000000000000000000:0050", "0A"), "nginx (pid 77) listens at port 80 of every address"},
		{"proc/net/tcp", line("FEA9FEA9:0050", "01"), ""}, // a connection
		{"proc/net/tcp", line("0100007F:0050", "0A"), ""},
		{"proc/net/tcp", line("00000000:1F90", "0A"), ""},
		{"proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nens4\tFEA9FEA9\t0100800A\t0007\t0\t0\t100\tFFFFFFFF\t0\t0\t0\n", "a route to it by ens4"},
		{"proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t0000FEA9\t00000000\t0001\t0\t0\t1000\t0000FFFF\t0\t0\t0\n", ""},
	} {
		w, lc := linkLocalWorld(t)
		w.write(c.file, c.text)
		w.write("proc/77/comm", "nginx\n")
		if err := os.MkdirAll(filepath.Join(w.root, "proc/77/fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("socket:[4242]", filepath.Join(w.root, "proc/77/fd/3")); err != nil {
			t.Fatal(err)
		}
		err := enable(t, lc)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.text, err)
			}
			continue
		}
		wantError(t, err, c.want)
	}
}

func TestLinkLocalMain(t *testing.T) {
	w, _ := linkLocalWorld(t)
	w.c.System = false
	run := func(args ...string) (string, string, error) {
		var out, said bytes.Buffer
		err := Main(t.Context(), w.c, append([]string{"link-local"}, args...), &out, &said)
		return out.String(), said.String(), err
	}
	for _, args := range [][]string{{}, {"on"}, {"enable", "now"}, {"enable", "--user"}, {"enable", "--user", "--force"}, {"enable", "--system", "--user", "a"}, {"enable", "--sytem"}, {"status", "--json=x"}} {
		_, _, err := run(args...)
		var usage *UsageError
		if !errors.As(err, &usage) || usage.Hint() != "keyfob link-local enable|disable|status" {
			t.Errorf("%q: %v", args, err)
		}
	}
	out, _, err := run("status", "--json")
	if err != nil || !strings.HasPrefix(out, `{"platform":"systemd","enabled":false,"active":false,`) {
		t.Errorf("%s, %v", out, err)
	}
	if out, _, err := run("disable"); err != nil || out != "" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestAddressesInANamespace runs itself again in a network namespace of its
// own, where the addresses are added and taken away for real.
func TestAddressesInANamespace(t *testing.T) {
	if os.Getenv("KEYFOB_TEST_NAMESPACE") == "" {
		if os.Getuid() != 0 {
			t.Skip("only root makes network namespaces")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "KEYFOB_TEST_NAMESPACE=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Skipf("network namespaces can't be made here: %v", err)
		}
		if err != nil {
			t.Errorf("inside: %v\n%s", err, out)
		}
		return
	}
	upLoopback(t)
	_, c := linkLocalWorld(t)
	c.IPv4Only, c.interfaceOf = false, nil
	l := mustLinkLocal(t, c)
	all := l.addresses()
	there := func(a netip.Addr) bool {
		name, err := interfaceOf(a)
		return err == nil && isLoopback(name)
	}
	for range 2 { // a second one changes nothing
		if err := l.up(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if !there(a) {
				t.Errorf("%s is not on lo", a)
			}
			conn, err := net.Listen("tcp", netip.AddrPortFrom(a, 80).String())
			if err != nil {
				t.Errorf("%s can't be used: %v", a, err)
				continue
			}
			_ = conn.Close()
		}
	}
	for range 2 {
		if err := l.down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range all {
		if there(a) {
			t.Errorf("%s stayed", a)
		}
	}
	// What was there before stays.
	if err := addLoopback(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.up(t.Context(), all), l.down(t.Context())); err != nil {
		t.Fatal(err)
	}
	if !there(all[0]) {
		t.Error("an address that was there before is gone")
	}
	if len(all) > 1 && there(all[1]) {
		t.Errorf("%s stayed", all[1])
	}

	// The whole of a hand-over: sockets are opened, one user gets them.
	if err := removeLoopback(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	openAndHandOver(t, l, all)
}

func upLoopback(t *testing.T) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		t.Fatal(err)
	}
}

package imds

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyfob/internal/access"
	"keyfob/internal/peer"
)

// hopsOf reads the hop limit of a client's connection at the server: "4:64"
// or "6:1".
func hopsOf(t *testing.T, s *Server, k *client) string {
	t.Helper()
	var all []string
	for _, c := range s.limits.of(s) {
		if c.RemoteAddr().String() != k.LocalAddr().String() {
			continue
		}
		if err := control(c.Conn, func(fd uintptr) error {
			v6 := c.LocalAddr().(*net.TCPAddr).IP.To4() == nil
			level, option, name := unix.IPPROTO_IP, unix.IP_TTL, "4"
			if v6 {
				level, option, name = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, "6"
			}
			n, err := unix.GetsockoptInt(int(fd), level, option)
			all = append(all, fmt.Sprintf("%s:%d", name, n))
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	return strings.Join(all, " ")
}

// reach waits until the kernel has a route to an address that was just added.
func reach(t *testing.T, address string) {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		var c net.Conn
		if c, err = net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
	}
	t.Fatal(err)
}

// TestLinkLocalHops: an answer that holds a token goes one hop, and so does
// whatever follows it on its connection; a loopback address needs no limit.
// Every form of Host that names a link-local address is taken, with the real
// look at the peer.
func TestLinkLocalHops(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, c := range []struct {
		listen, dial, before, after string
		hosts, refused              []string
	}{
		{"169.254.169.254:80", "169.254.169.254:80", "4:64", "4:1", []string{"169.254.169.254", "169.254.169.254:80", "localhost"}, []string{"169.254.169.254:8080", "169.254.170.2", "127.0.0.1", "169.254.169.254.nip.io", "instance-data"}},
		{"[fd00:ec2::254]:80", "[fd00:ec2::254]:80", "6:64", "6:1", []string{"[fd00:ec2::254]", "[fd00:ec2::254]:80", "[FD00:EC2::254]:80", "[fd00:ec2:0:0::254]"}, []string{"fd00:ec2::254", "[fd00:ec2::253]", "[::1]", "[fd00:ec2::254]:81", "[fd00:ec2::254", "[fd00:ec2::254%25lo]"}},
		{"[::]:8080", "169.254.169.254:8080", "4:64", "4:1", []string{"169.254.169.254", "169.254.169.254:8080"}, []string{"127.0.0.1:8080", "[fd00:ec2::254]:8080"}},
		{"127.0.0.1:9911", "127.0.0.1:9911", "4:64", "4:64", []string{"127.0.0.1"}, nil},
		{"[::1]:9911", "[::1]:9911", "6:64", "6:64", []string{"[::1]", "[0::1]:9911"}, []string{"::1"}},
	} {
		t.Run(c.listen, func(t *testing.T) {
			l, err := Listen(t.Context(), c.listen)
			if err != nil {
				t.Skipf("%s: this machine has no such address: %v", t.Name(), err)
			}
			tokens := access.NewTokens([32]byte{1})
			s := NewMetadata(MetadataConfig{
				Listener: l, Profile: "dev", Broker: newBroker(), Facts: testFacts,
				Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
			})
			start(t, s)
			reach(t, c.dial)
			k := dial(t, c.dial)
			defer k.Close()
			if a := k.send(t, "GET", request("GET", "/latest/", c.dial)); a.status != 401 || hopsOf(t, s, k) != c.before {
				t.Errorf("before a token: %d, hops %s, want %s", a.status, hopsOf(t, s, k), c.before)
			}
			ttl := "X-aws-ec2-metadata-token-ttl-seconds: 60"
			a := k.send(t, "PUT", request("PUT", "/latest/api/token", c.dial, ttl))
			if a.status != 200 || hopsOf(t, s, k) != c.after {
				t.Errorf("with a token: %d, hops %s, want %s", a.status, hopsOf(t, s, k), c.after)
			}
			if g := k.send(t, "GET", request("GET", credentialsPath, c.dial, withToken(a.body))); g.status != 200 || hopsOf(t, s, k) != c.after {
				t.Errorf("after it: %d, hops %s, want %s", g.status, hopsOf(t, s, k), c.after)
			}
			for _, host := range c.hosts {
				if got := raw(t, c.dial, "PUT", request("PUT", "/latest/api/token", host, ttl)); got.status != 200 {
					t.Errorf("Host %s: %d", host, got.status)
				}
			}
			for _, host := range c.refused {
				if got := raw(t, c.dial, "PUT", request("PUT", "/latest/api/token", host, ttl)); got.status != 403 && got.status != 400 {
					t.Errorf("Host %s: %d", host, got.status)
				}
			}
		})
	}
}

// TestLinkLocalContainer: the addresses at which SDKs ask for container
// credentials without TLS.
func TestLinkLocalContainer(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, address := range []string{"169.254.170.2", "169.254.170.23", "fd00:ec2::23"} {
		args := strings.Fields("addr add " + address + "/32 dev lo")
		if strings.Contains(address, ":") {
			args = strings.Fields("addr add " + address + "/128 dev lo nodad")
		}
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Logf("%s: %v: %s", address, err, out)
			continue
		}
		l, err := Listen(t.Context(), net.JoinHostPort(address, "80"))
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		grants := newGrants(t)
		_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
		relative, _ := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self(), Relative: true})
		containerServer(t, func(c *ContainerConfig) { c.Listener, c.Grants = l, grants })
		host := address
		if strings.Contains(address, ":") {
			host = "[" + address + "]"
		}
		reach(t, host+":80")
		for _, h := range []string{host, host + ":80"} {
			if a := raw(t, host+":80", "GET", request("GET", "/v1/credentials/dev", h, authorization(token))); a.status != 200 || !strings.Contains(a.body, canarySecret) {
				t.Errorf("Host %s: %d", h, a.status)
			}
			if a := raw(t, host+":80", "GET", request("GET", "/v2/credentials/"+relative.ID, h)); a.status != 200 {
				t.Errorf("Host %s, relative: %d", h, a.status)
			}
		}
		if a := raw(t, host+":80", "GET", request("GET", "/v1/credentials/dev", "evil.example", authorization(token))); a.status != 403 {
			t.Errorf("a foreign Host at %s: %d", address, a.status)
		}
	}
}

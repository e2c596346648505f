package imds

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard refuses requests that were not written by a program which means this
// endpoint: those that a browser, a proxy or a name rebound to this address
// brings. It looks at the same things on every method and path.
type guard struct {
	exact    []string // Host values as clients write them, compared first
	names    []string // lower case, without port
	ips      []netip.Addr
	covers   func(host string) bool // by a certificate's wildcard; nil for none
	wildcard bool                   // the listener has no address of its own: the connection's counts
	port     string                 // "" on a listener without ports
}

// newGuard makes the guard of a listener. hosts are further names or
// addresses; one with a port stands for exactly that.
func newGuard(listen net.Addr, hosts []string) *guard {
	g := &guard{names: []string{"localhost"}}
	host, port, err := net.SplitHostPort(listen.String())
	if err == nil {
		g.port = port
		g.add(host)
	}
	g.exact = append(g.exact, "localhost", "localhost:"+g.port)
	for _, h := range hosts {
		g.add(h)
	}
	return g
}

// newSecureGuard makes the guard of a listener that speaks TLS: whoever checked
// the certificate came by one of its names.
func newSecureGuard(listen net.Addr, hosts []string, c *Certificate) *guard {
	g := &guard{covers: c.Covers}
	if _, port, err := net.SplitHostPort(listen.String()); err == nil {
		g.port = port
	}
	for _, name := range c.Names() {
		if !strings.Contains(name, "*") {
			g.add(name)
		}
	}
	for _, h := range hosts {
		g.add(h)
	}
	return g
}

func (g *guard) add(host string) {
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if ip, err := netip.ParseAddr(bare); err == nil {
		if ip.IsUnspecified() {
			g.wildcard = true
			return
		}
		ip = ip.Unmap()
		g.ips = append(g.ips, ip)
		text := ip.String()
		if ip.Is6() {
			text = "[" + text + "]"
		}
		g.exact = append(g.exact, text, text+":"+g.port)
		return
	}
	name := strings.ToLower(host)
	if strings.Contains(name, ":") {
		g.exact = append(g.exact, name)
		return
	}
	if name != "" {
		g.names = append(g.names, name)
		g.exact = append(g.exact, name, name+":"+g.port)
	}
}

// host reports whether a Host value names this endpoint: the address itself,
// localhost or a configured name, with the listener's port or none (the CRT
// clients leave it out). It must be given r.Host: net/http takes Host out of
// the header map.
func (g *guard) host(host string, c net.Conn) bool {
	for _, e := range g.exact {
		if host == e {
			return true
		}
	}
	return g.otherwise(host, c)
}

// otherwise judges a Host that is written in another way.
func (g *guard) otherwise(host string, c net.Conn) bool {
	name := host
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || !g.suffix(host[end+1:]) {
			return false
		}
		name = host[1:end]
		if strings.IndexByte(name, ':') < 0 {
			return false // brackets are for IPv6 alone
		}
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		if !g.suffix(host[i:]) {
			return false
		}
		name = host[:i]
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		for _, own := range g.ips {
			if ip == own {
				return true
			}
		}
		if !g.wildcard {
			return false
		}
		own, err := netip.ParseAddrPort(c.LocalAddr().String())
		return err == nil && own.Addr().Unmap() == ip
	}
	name = strings.ToLower(name)
	for _, own := range g.names {
		if name == own {
			return true
		}
	}
	return g.covers != nil && g.covers(name)
}

// suffix judges what follows the host part.
func (g *guard) suffix(s string) bool { return s == "" || len(s) > 1 && s[1:] == g.port && s[0] == ':' }

// refuses names the kind of a header that no AWS client sends, or returns
// "". Presence counts, whatever the value. A kind, because the rest of a name
// is the sender's to choose, and this text goes into the logs.
func refuses(h http.Header) string {
	for name := range h {
		if kind := foreign(name); kind != "" {
			return kind
		}
	}
	return ""
}

// foreign judges a header's canonical name.
func foreign(name string) string {
	if name == "" {
		return "without a name"
	}
	switch name[0] {
	case 'A':
		return starts(name, "Access-Control-")
	case 'F':
		return starts(name, "Forwarded")
	case 'O':
		return is(name, "Origin")
	case 'P':
		return starts(name, "Proxy-") // of a client that thinks we are its proxy
	case 'R':
		return is(name, "Referer")
	case 'S':
		return starts(name, "Sec-") // scripts can't set these: a browser is there
	case 'V':
		return is(name, "Via")
	case 'X':
		return foreignX(name)
	}
	return ""
}

func foreignX(name string) string {
	if len(name) < 3 {
		return ""
	}
	switch name[2] {
	case 'A': // X-Aws-Ec2-Metadata-Token, on nearly every request
		return ""
	case 'C':
		return is(name, "X-Client-Ip") + is(name, "X-Cluster-Client-Ip")
	case 'F', 'f': // X_forwarded_for is read as X-Forwarded-For by gateways
		if strings.HasPrefix(name[2:], "Forward") || strings.HasPrefix(name[2:], "forward") {
			return "X-Forwarded-*"
		}
	case 'H':
		return starts(name, "X-Http-Method")
	case 'M':
		return is(name, "X-Method-Override")
	case 'O':
		return starts(name, "X-Original-")
	case 'R':
		return is(name, "X-Real-Ip") + starts(name, "X-Rewrite-")
	}
	return ""
}

func is(name, foreign string) string {
	if name == foreign {
		return foreign
	}
	return ""
}

func starts(name, foreign string) string {
	if strings.HasPrefix(name, foreign) {
		return foreign
	}
	return ""
}

package imds

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"keyfob/internal/access"
)

// Each test here sends over real sockets what a program that means well does
// not send. What opens the endpoint is good in all of them, so that nothing
// but what is tested stands before the credentials.

// secrets sends bytes on a connection of its own, ends, and returns the
// statuses of the answers and how many secrets were in them.
func secrets(t *testing.T, address, bytes string) (statuses []int, found int, closed bool) {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	go func() {
		_, _ = io.WriteString(c, bytes)
	}()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	last := false
	for {
		if !last && len(statuses) > 0 && len(statuses) == strings.Count(bytes, " HTTP/1.") {
			// Is it kept?
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			var network net.Error
			return statuses, found, !asTimeout(err, &network)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		last = resp.Close // then its end comes, however busy the machine is
		statuses = append(statuses, resp.StatusCode)
		found += strings.Count(string(body), canarySecret)
	}
}

func asTimeout(err error, n *net.Error) bool {
	ne, ok := err.(net.Error)
	if ok {
		*n = ne
	}
	return ok && ne.Timeout()
}

// both are the endpoints with a request that each answers with a secret.
func both(t *testing.T) map[string]struct{ address, path, header string } {
	grants := newGrants(t)
	container := containerServer(t, func(c *ContainerConfig) { c.Grants, c.identify = grants, someone("1000") })
	_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000"})
	imds := metadataServer(t, func(c *MetadataConfig) { c.identify = someone("1000") })
	return map[string]struct{ address, path, header string }{
		"metadata":  {imds, credentialsPath, withToken(newToken(t, imds))},
		"container": {container, "/v1/credentials/dev", authorization(token)},
	}
}

// TestFraming: requests whose end two readers could see in different places.
// What comes behind one that was refused is never a request.
func TestFraming(t *testing.T) {
	t.Parallel()
	for name, e := range both(t) {
		good := request("GET", e.path, e.address, e.header)
		with := func(headers ...string) string {
			return request("GET", e.path, e.address, append(headers, e.header)...)
		}
		for _, c := range []struct {
			what     string
			bytes    string
			statuses string
			secrets  int
		}{
			{"good", good, "200", 1},
			{"two good ones", good + good, "200 200", 2},
			{"length and chunks", with("Content-Length: 4", "Transfer-Encoding: chunked") + "0\r\n\r\n" + good, "400", 0},
			{"chunks and length", with("Transfer-Encoding: chunked", "Content-Length: 4") + "0\r\n\r\n" + good, "400", 0},
			{"two lengths", with("Content-Length: 0", "Content-Length: 5") + good, "400", 0},
			{"two equal lengths of a body", with("Content-Length: 5", "Content-Length: 5") + "GET /" + good, "400", 0},
			{"two equal lengths of nothing", with("Content-Length: 0", "Content-Length: 0") + good, "200 200", 2},
			{"a list of lengths", with("Content-Length: 0, 0") + good, "400", 0},
			{"hex length", with("Content-Length: 0x0") + good, "400", 0},
			{"plus length", with("Content-Length: +0") + good, "400", 0},
			{"empty length", with("Content-Length:") + good, "400", 0},
			{"spaced length", with("Content-Length: 0 0") + good, "400", 0},
			{"xchunked", with("Transfer-Encoding: xchunked") + "0\r\n\r\n" + good, "501", 0},
			{"chunked, identity", with("Transfer-Encoding: chunked, identity") + "0\r\n\r\n" + good, "501", 0},
			{"chunked twice", with("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + "0\r\n\r\n" + good, "501", 0},
			{"CHUNKED", with("Transfer-Encoding: CHUNKED") + "0\r\n\r\n" + good, "400", 0},
			{"chunked after a tab", with("Transfer-Encoding:\tchunked") + "0\r\n\r\n" + good, "400", 0},
			{"chunked with a vertical tab", with("Transfer-Encoding: \x0bchunked") + "0\r\n\r\n" + good, "400", 0},
			{"space before the colon", with("Transfer-Encoding : chunked") + "0\r\n\r\n" + good, "400", 0},
			{"chunk extension", with("Transfer-Encoding: chunked") + "0;a=b\r\n\r\n" + good, "400", 0},
			{"chunked, folded", with("Transfer-Encoding:\r\n chunked") + "0\r\n\r\n" + good, "400", 0},
			{"length, folded", with("Content-Length:\r\n 5") + "GET /" + good, "400", 0},
			{"Host, folded", strings.Replace(good, "Host: ", "Host:\r\n ", 1) + good, "200 200", 2}, // a fold is a space (RFC 9112, 5.2)
			{"a fold before any header", strings.Replace(good, "\r\nHost", "\r\n X: y\r\nHost", 1) + good, "400", 0},
			{"bare LF hides nothing", with("X-A: b\nOrigin: http://x"), "403", 0},
			{"bare LF at the end of the head", strings.Replace(good, "\r\n\r\n", "\n\n", 1), "200", 1},
			{"bare CR", with("X-A: b\rOrigin: http://x") + good, "400", 0},
			{"CR CR LF", with("X-A: b\r") + good, "400", 0},
			{"NUL in a value", with("X-A: b\x00") + good, "400", 0},
			{"NUL in a name", with("X\x00A: b") + good, "400", 0},
			{"NUL in the target", strings.Replace(good, " HTTP/1.1", "\x00 HTTP/1.1", 1) + good, "400", 0},
			{"NUL in the method", "\x00" + good + good, "400", 0},
			{"a name of no letters", with(": b") + good, "400", 0},
			{"a line without a colon", with("Origin") + good, "400", 0},
			{"HTTP/1.0 with chunks", strings.Replace(with("Transfer-Encoding: chunked"), "HTTP/1.1", "HTTP/1.0", 1) + "0\r\n\r\n" + good, "200", 1}, // has no chunks (RFC 9112, 6.1), and the connection ends
			{"HTTP/0.9", "GET " + e.path + "\r\n" + good, "400", 0},
			{"HTTP/1.2", strings.Replace(good, "HTTP/1.1", "HTTP/1.2", 1), "200", 1},
			{"http/1.1", strings.Replace(good, "HTTP/1.1", "http/1.1", 1), "400", 0},
			{"two spaces", strings.Replace(good, " HTTP/1.1", "  HTTP/1.1", 1) + good, "400", 0},
			{"a tab in the request line", strings.Replace(good, " HTTP/1.1", "\tHTTP/1.1", 1) + good, "400", 0},
			{"empty lines before", "\r\n\r\n" + good, "400", 0},
			{"a body on HEAD", strings.Replace(with("Content-Length: 4"), "GET", "HEAD", 1) + "abcd" + good, "400", 0},
			{"an expectation", with("Expect: 100-continue"), "200", 1},
			{"an odd expectation", with("Expect: x"), "417", 0},
			{"a trailer", with("Trailer: Host"), "200", 1},
		} {
			statuses, found, _ := secrets(t, e.address, c.bytes)
			if got := strings.Trim(fmt.Sprint(statuses), "[]"); got != c.statuses || found != c.secrets {
				t.Errorf("%s: %s: answered %s with %d secrets, want %s with %d", name, c.what, got, found, c.statuses, c.secrets)
			}
		}
	}
}

// TestDuplicates: what opens an endpoint, or frames a request, comes once.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	for name, e := range both(t) {
		bad := strings.Replace(e.header, ": ", ": x", 1)
		for what, headers := range map[string][]string{
			"the same twice": {e.header, e.header}, "good and bad": {e.header, bad}, "bad and good": {bad, e.header},
			"empty and good": {e.header[:strings.IndexByte(e.header, ':')+1], e.header}, "good and empty": {e.header, e.header[:strings.IndexByte(e.header, ':')+1]},
			"in two cases": {e.header, strings.ToUpper(e.header[:10]) + e.header[10:]}, "a list": {e.header + ", " + e.header[strings.IndexByte(e.header, ' ')+1:]},
		} {
			if a := get(t, e.address, e.path, headers...); a.status != 401 || strings.Contains(a.body, canarySecret) {
				t.Errorf("%s: %s: %d", name, what, a.status)
			}
		}
		for what, r := range map[string]string{
			"a second Host":    request("GET", e.path, e.address, "Host: "+e.address, e.header),
			"an empty Host":    request("GET", e.path, "", e.header),
			"no Host":          "GET " + e.path + " HTTP/1.1\r\n" + e.header + "\r\n\r\n",
			"no Host at all":   "GET " + e.path + " HTTP/1.0\r\n" + e.header + "\r\n\r\n",
			"Host with spaces": request("GET", e.path, e.address+" evil.example", e.header),
		} {
			if a := raw(t, e.address, "GET", r); a.status != 400 || !a.closed {
				t.Errorf("%s: %s: %d", name, what, a.status)
			}
		}
		for what, r := range map[string]string{
			"an oversized value":  request("GET", e.path, e.address, e.header, "X-A: "+strings.Repeat("x", 64<<10)),
			"an oversized token":  request("GET", e.path, e.address, e.header+strings.Repeat("x", 64<<10)),
			"an oversized name":   request("GET", e.path, e.address, e.header, strings.Repeat("x", 64<<10)+": y"),
			"an oversized target": request("GET", e.path+"?"+strings.Repeat("x", 64<<10), e.address, e.header),
			"very many headers":   request("GET", e.path, e.address, e.header, strings.Repeat("X-A: b\r\n", 8<<10)+"X-B: c"),
		} {
			statuses, found, closed := secrets(t, e.address, r)
			if fmt.Sprint(statuses) != "[431]" || found != 0 || !closed {
				t.Errorf("%s: %s: %v, %d secrets, closed %v", name, what, statuses, found, closed)
			}
		}
	}
}

// TestPathTricks: a path is what it says, byte for byte.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	for name, e := range both(t) {
		cut := strings.LastIndexByte(e.path, '/')
		dir, leaf := e.path[:cut], e.path[cut+1:]
		for _, path := range []string{
			dir + "/./" + leaf, dir + "/../" + dir[strings.LastIndexByte(dir, '/')+1:] + "/" + leaf, dir + "/x/../" + leaf, "/x/.." + e.path, "/.." + e.path, "/." + e.path,
			dir + "/%2e/" + leaf, dir + "/%2e%2e/" + leaf, dir + "/x/%2e%2e/" + leaf, "/%2e%2e" + e.path, dir + "//" + leaf, "///" + e.path[1:], dir + "%2f" + leaf, dir + "%2F" + leaf,
			"/%2f" + e.path[1:], dir + "\\" + leaf, dir + "%5c" + leaf, dir + "/" + leaf + "%00", dir + "/" + leaf + "%00.html", dir + "/%00" + leaf, e.path + "%20", e.path + "%0d%0a",
			e.path + ";x", dir + ";x/" + leaf, e.path + "/x", strings.ToUpper(e.path), dir + "/%252e/" + leaf, e.path + "%c0%ae", e.path + "/..", dir + "/..%2f" + leaf,
			"/" + strings.Replace(e.path[1:], "/", "/%2e/", 1), "/*", "/~", "/%",
		} {
			a := get(t, e.address, path, e.header)
			if a.status != 404 && a.status != 400 && a.status != 403 || strings.Contains(a.body, canarySecret) || a.header.Get("Location") != "" {
				t.Errorf("%s: %q: %d %.60q", name, path, a.status, a.body)
			}
		}
		for _, path := range []string{e.path + "?", e.path + "?x=/../y", "/" + e.path, dir + "/%" + fmt.Sprintf("%x", leaf[0]) + leaf[1:]} {
			if a := get(t, e.address, path, e.header); a.status != 200 {
				t.Errorf("%s: %q: %d", name, path, a.status)
			}
		}
		if a := get(t, e.address, e.path+"#x", e.header); a.status == 200 {
			t.Errorf("%s: a fragment: %d", name, a.status)
		}
	}
}

// TestForeignHeaders: the guard refuses the same on both endpoints, whatever
// the rest of the name, the case and the value.
func TestForeignHeaders(t *testing.T) {
	t.Parallel()
	for name, e := range both(t) {
		for _, header := range []string{
			"Origin: http://127.0.0.1", "origin:", "ORIGIN: null", "Referer: http://127.0.0.1/", "Sec-Fetch-Site: none", "Sec-Fetch-User: ?1", "sec-websocket-key: x", "Sec-Anything: x",
			"X-Forwarded-For: 127.0.0.1", "x-forwarded-anything: x", "X-Forwarded: x", "X_Forwarded_For: x", "X-Forwarded-For:", "Forwarded: for=127.0.0.1", "Forwarded-For: x", "Via: 1.1 x",
			"X-Real-IP: x", "X-Client-IP: x", "X-Cluster-Client-IP: x", "X-HTTP-Method-Override: GET", "X-HTTP-Method: GET", "X-Method-Override: GET", "X-Original-URL: /", "X-Rewrite-URL: /",
			"Proxy-Connection: x", "Proxy-Authorization: x", "Access-Control-Request-Method: GET", "Access-Control-Request-Private-Network: true",
		} {
			if a := get(t, e.address, e.path, e.header, header); a.status != 403 || strings.Contains(a.body, canarySecret) {
				t.Errorf("%s: %q: %d", name, header, a.status)
			}
			if a := raw(t, e.address, "PUT", request("PUT", "/latest/api/token", e.address, "X-aws-ec2-metadata-token-ttl-seconds: 60", header)); a.status != 403 {
				t.Errorf("%s: PUT with %q: %d", name, header, a.status)
			}
		}
		for _, target := range []string{"http://" + e.address + e.path, "HTTP://" + e.address + e.path, "http://evil.example" + e.path, "https://" + e.address + e.path, "ftp://" + e.address + e.path} {
			if a := raw(t, e.address, "GET", request("GET", target, e.address, e.header)); a.status != 403 || strings.Contains(a.body, canarySecret) {
				t.Errorf("%s: target %q: %d", name, target, a.status)
			}
		}
		for _, target := range []string{e.address, "evil.example:443", "127.0.0.1:22"} {
			statuses, found, _ := secrets(t, e.address, request("CONNECT", target, e.address, e.header))
			if fmt.Sprint(statuses) != "[403]" || found != 0 {
				t.Errorf("%s: CONNECT %s: %v", name, target, statuses)
			}
		}
		_, port, _ := net.SplitHostPort(e.address)
		for _, host := range []string{
			"evil.example", "evil.example:" + port, "127.0.0.1.evil.example:" + port, "127.0.0.1.:" + port, "127.1:" + port, "2130706433:" + port, "0x7f000001:" + port, "0177.0.0.1:" + port, "127.0.0.1:0" + port,
			"127.0.0.1:", "[::1]:" + port, "[127.0.0.1]:" + port, "[::ffff:127.0.0.1]:" + port, "::1", "localhost.:" + port, "localhost.localdomain", "xn--localhost:" + port, "localhost:1", "0.0.0.0:" + port, "127.0.0.1%00:" + port,
		} {
			if a := raw(t, e.address, "GET", request("GET", e.path, host, e.header)); a.status != 403 && a.status != 400 || strings.Contains(a.body, canarySecret) {
				t.Errorf("%s: Host %q: %d", name, host, a.status)
			}
		}
	}
}

// TestAfterError: on a connection that is kept after a refusal the next
// request is judged by itself; after a refusal that ends the connection there
// is no next request.
func TestAfterError(t *testing.T) {
	t.Parallel()
	for name, e := range both(t) {
		good := request("GET", e.path, e.address, e.header)
		for status, bad := range map[int]string{
			401: request("GET", e.path, e.address),
			403: request("GET", e.path, e.address, e.header, "Origin: x"),
			404: request("GET", "/nothing", e.address, e.header),
			405: request("DELETE", e.path, e.address, e.header),
		} {
			c := dial(t, e.address)
			for range 3 {
				if a := c.send(t, "GET", bad); a.status != status || strings.Contains(a.body, canarySecret) || a.closed {
					t.Errorf("%s: %d, want %d; closed %v", name, a.status, status, a.closed)
				}
				if a := c.send(t, "GET", good); a.status != 200 || strings.Count(a.body, canarySecret) != 1 {
					t.Errorf("%s: after %d: %d", name, status, a.status)
				}
			}
			if a := c.send(t, "GET", bad); a.status != status {
				t.Errorf("%s: %d, want %d", name, a.status, status)
			}
			c.Close()
			// The same in one write.
			statuses, found, _ := secrets(t, e.address, bad+good+bad)
			if fmt.Sprint(statuses) != fmt.Sprint([]int{status, 200, status}) || found != 1 {
				t.Errorf("%s: pipelined: %v with %d secrets", name, statuses, found)
			}
		}
		for what, bad := range map[string]string{
			"no Host": "GET / HTTP/1.1\r\n\r\n", "a body on GET": request("GET", e.path, e.address, e.header, "Content-Length: 1") + "x", "a body that nobody reads": request("POST", e.path, e.address, e.header, "Content-Length: 1") + "x",
			"no method": " / HTTP/1.1\r\nHost: " + e.address + "\r\n\r\n", "too much": request("GET", "/", e.address, "X: "+strings.Repeat("x", 20<<10)),
		} {
			if statuses, found, closed := secrets(t, e.address, bad+good); len(statuses) != 1 || statuses[0] < 400 || found != 0 || !closed {
				t.Errorf("%s: after %s: %v with %d secrets; closed %v", name, what, statuses, found, closed)
			}
		}
	}
}

// TestOtherProtocols: what begins another protocol on this port gets nothing,
// and the connection ends.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	for name, e := range both(t) {
		// TLS: the client sees that nobody speaks it here.
		raw, err := net.Dial("tcp", e.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
		c := tls.Client(raw, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true})
		if err := c.Handshake(); err == nil {
			t.Errorf("%s: speaks TLS", name)
		}
		raw.Close()
		for what, bytes := range map[string]string{
			"HTTP/2":         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
			"SSH":            "SSH-2.0-OpenSSH_9.6\r\n",
			"a mail server":  "EHLO evil.example\r\nMAIL FROM:<a@b>\r\n\r\n",
			"Redis":          "*1\r\n$4\r\nPING\r\n\r\n",
			"SOCKS":          "\x05\x01\x00\r\n\r\n",
			"a proxy's line": "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + request("GET", e.path, e.address, e.header),
			"and its binary": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + request("GET", e.path, e.address, e.header),
		} {
			if statuses, found, closed := secrets(t, e.address, bytes); len(statuses) > 1 || len(statuses) == 1 && statuses[0] < 400 || found != 0 || !closed {
				t.Errorf("%s: %s: %v with %d secrets; closed %v", name, what, statuses, found, closed)
			}
		}
		// An upgrade is an offer: it is not taken, and what follows is HTTP/1.1.
		for _, upgrade := range [][]string{
			{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"}, {"Connection: Upgrade", "Upgrade: websocket"}, {"Connection: Upgrade", "Upgrade: TLS/1.2"},
		} {
			bytes := request("GET", e.path, e.address, append(upgrade, e.header)...)
			statuses, found, _ := secrets(t, e.address, bytes+"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			if len(statuses) == 0 || statuses[0] != 200 || found > 1 || len(statuses) > 1 && statuses[1] < 400 {
				t.Errorf("%s: %v: %v with %d secrets", name, upgrade, statuses, found)
			}
		}
	}
}

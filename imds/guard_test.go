package imds

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestGuard sends, over real connections, what browsers, proxies, rebound
// names and smugglers send. Every request has a good token, so that nothing
// but the guard stands before the credentials.
func TestGuard(t *testing.T) {
	t.Parallel()
	log, lines := newLog(t)
	address := metadataServer(t, func(c *MetadataConfig) { c.Hosts = []string{"creds.internal"}; c.Log = log })
	_, port, _ := net.SplitHostPort(address)
	token := newToken(t, address)
	with := func(headers ...string) string {
		return request("GET", credentialsPath, address, append(headers, withToken(token))...)
	}
	host := func(h string) string { return request("GET", credentialsPath, h, withToken(token)) }
	head := "GET " + credentialsPath + " HTTP/1.1\r\n"
	tail := withToken(token) + "\r\n\r\n"

	for _, c := range []struct {
		name    string
		request string
		status  int
		closed  bool
	}{
		{"plain", with(), 200, false},
		{"address without port", host("127.0.0.1"), 200, false},
		{"localhost", host("localhost:" + port), 200, false},
		{"localhost without port", host("LocalHost"), 200, false},
		{"configured name", host("creds.internal"), 200, false},

		{"no Host", head + tail, 400, true},
		{"no Host in HTTP/1.0", "GET " + credentialsPath + " HTTP/1.0\r\n" + tail, 400, true},
		{"empty Host", head + "Host:\r\n" + tail, 400, true},
		{"two Hosts", head + "Host: " + address + "\r\nHost: evil.example\r\n" + tail, 400, true},
		{"two equal Hosts", head + "Host: " + address + "\r\nHost: " + address + "\r\n" + tail, 400, true},
		{"rebound name", host("rebound.example:" + port), 403, false},
		{"rebound name without port", host("169.254.169.254.nip.io"), 403, false},
		{"other port", host("127.0.0.1:1"), 403, false},
		{"other address", host("127.0.0.2:" + port), 403, false},
		{"user in Host", host("127.0.0.1@evil.example"), 400, true},
		{"Host with a path", host("127.0.0.1/x"), 400, true},
		{"comma in Host", host("127.0.0.1, evil.example"), 400, true},

		{"Origin", with("Origin: http://127.0.0.1"), 403, false},
		{"null Origin", with("Origin: null"), 403, false},
		{"empty Origin", with("Origin:"), 403, false},
		{"own Origin", with("oRIGIN: http://" + address), 403, false},
		{"Referer", with("Referer: http://" + address + "/"), 403, false},
		{"Sec-Fetch-Site", with("Sec-Fetch-Site: none"), 403, false},
		{"Sec-Fetch-Mode", with("sec-fetch-mode: navigate"), 403, false},
		{"Sec-Fetch-Dest", with("Sec-Fetch-Dest: document"), 403, false},
		{"Sec-CH-UA", with("Sec-CH-UA: x"), 403, false},
		{"X-Forwarded-For", with("X-Forwarded-For: 127.0.0.1"), 403, false},
		{"empty X-Forwarded-For", with("X-Forwarded-For:"), 403, false},
		{"X-Forwarded-Host", with("X-Forwarded-Host: a"), 403, false},
		{"X-Forwarded-Proto", with("x-forwarded-proto: http"), 403, false},
		{"X-Forwarded", with("X-Forwarded: for=1"), 403, false},
		{"X_Forwarded_For", with("X_Forwarded_For: 127.0.0.1"), 403, false},
		{"Forwarded", with("Forwarded: for=127.0.0.1"), 403, false},
		{"Via", with("Via: 1.1 proxy"), 403, false},
		{"X-Real-IP", with("X-Real-IP: 127.0.0.1"), 403, false},
		{"X-HTTP-Method-Override", with("X-HTTP-Method-Override: PUT"), 403, false},
		{"X-HTTP-Method", with("X-HTTP-Method: PUT"), 403, false},
		{"X-Method-Override", with("X-Method-Override: PUT"), 403, false},
		{"X-Original-URL", with("X-Original-URL: /"), 403, false},
		{"Proxy-Connection", with("Proxy-Connection: keep-alive"), 403, false},
		{"preflight", with("Access-Control-Request-Method: PUT"), 403, false},

		{"absolute form", request("GET", "http://"+address+credentialsPath, address, withToken(token)), 403, false},
		{"absolute form of another host", request("GET", "http://evil.example"+credentialsPath, address, withToken(token)), 403, false},
		{"absolute form without Host", "GET http://" + address + credentialsPath + " HTTP/1.1\r\n" + tail, 400, true},
		{"absolute form, https", request("GET", "https://"+address+credentialsPath, address, withToken(token)), 403, false},
		{"odd scheme", request("GET", "file:"+credentialsPath, address, withToken(token)), 403, false},
		{"CONNECT", request("CONNECT", address, address, withToken(token)), 403, false},
		{"CONNECT elsewhere", request("CONNECT", "evil.example:443", address), 403, false},
		{"CONNECT with a path", request("CONNECT", credentialsPath, address, withToken(token)), 405, false},
		{"GET *", request("GET", "*", address, withToken(token)), 400, true},
		{"OPTIONS *", request("OPTIONS", "*", address, withToken(token)), 405, false},
		{"no slash", request("GET", "latest/meta-data/", address, withToken(token)), 400, true},

		{"body on GET", with("Content-Length: 1") + "x", 400, true},
		{"chunked body on GET", with("Transfer-Encoding: chunked") + "0\r\n\r\n", 400, true},
		{"length and chunks", with("Content-Length: 3", "Transfer-Encoding: chunked") + "0\r\n\r\n", 400, true},
		{"two lengths", with("Content-Length: 0", "Content-Length: 7") + "GET / H", 400, true},
		{"negative length", with("Content-Length: -1"), 400, true},
		{"signed length", with("Content-Length: +0"), 400, true},
		{"odd coding", with("Transfer-Encoding: gzip, chunked") + "0\r\n\r\n", 501, true},
		{"hidden coding", with("Transfer-Encoding: xchunked") + "0\r\n\r\n", 501, true},
		{"two codings", with("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + "0\r\n\r\n", 501, true},
		{"space before colon", with("Transfer-Encoding : chunked") + "0\r\n\r\n", 400, true},
		{"space in a name", with("X Y: 1"), 400, true},
		{"folded header", with("X-A: 1\r\n Origin: http://x"), 200, false}, // one header: a fold is a space (RFC 9112, 5.2)
		{"bare CR in a value", with("X-A: 1\rOrigin: x"), 400, true},
		{"NUL in a value", with("X-A: a\x00b"), 400, true},
		{"NUL in the path", request("GET", "/latest/\x00", address, withToken(token)), 400, true},
		{"space in the path", request("GET", "/latest/ meta-data", address, withToken(token)), 400, true},
		{"bad escape", request("GET", "/latest/%zz", address, withToken(token)), 400, true},
		{"large header", with("X-Large: " + strings.Repeat("x", 20<<10)), 431, true},
		{"many headers", with(strings.Repeat("X-A: b\r\n", 3000) + "X-B: c"), 431, true},
		{"long path", request("GET", "/"+strings.Repeat("x", 20<<10), address), 431, true},
		{"odd version", strings.Replace(with(), "HTTP/1.1", "HTTP/3.0", 1), 505, true},
		{"no version", "GET " + credentialsPath + "\r\n\r\n", 400, true},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, true},
		{"binary", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, true},
	} {
		a := raw(t, address, strings.SplitN(c.request, " ", 2)[0], c.request)
		if a.status != c.status || a.closed != c.closed {
			t.Errorf("%s: %d (closed: %v), want %d (%v)", c.name, a.status, a.closed, c.status, c.closed)
		}
		if c.status != 200 {
			noSecret(t, c.name, fmt.Sprint(a))
			if a.header.Get(headerTTL) != "" {
				t.Errorf("%s: has a TTL header", c.name)
			}
		}
	}
	noSecret(t, "the log", lines.String())
	if strings.Contains(lines.String(), token) {
		t.Error("the log holds a token")
	}
	for _, want := range []string{"Host is not this endpoint", "header Origin", "header X-Forwarded-*", "request refused"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// TestGuardOnPUT: EC2 refuses a token PUT that came through a proxy; we
// refuse the rest there too, and on every other method.
func TestGuardOnPUT(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	for _, method := range []string{"PUT", "GET", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"} {
		for _, bad := range []string{"X-Forwarded-For: 1.2.3.4", "Origin: http://x", "Via: 1.1 x", "Sec-Fetch-Site: cross-site"} {
			a := raw(t, address, method, request(method, "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 60", bad))
			if a.status != 403 {
				t.Errorf("%s with %s: %d", method, bad, a.status)
			}
		}
		if a := raw(t, address, method, request(method, "/latest/api/token", "evil.example", "X-aws-ec2-metadata-token-ttl-seconds: 60")); a.status != 403 {
			t.Errorf("%s with a foreign Host: %d", method, a.status)
		}
	}
}

// TestOrder: what can't be parsed 400, the guard 403, the method 405, the
// token 401, existence 404.
func TestOrder(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	token := newToken(t, address)
	ttl := "X-aws-ec2-metadata-token-ttl-seconds: 60"
	for _, c := range []struct {
		name, method, path, host string
		headers                  []string
		status                   int
	}{
		{"body before Host", "GET", "/nope", "evil.example", []string{"Content-Length: 1"}, 400},
		{"Host before method", "POST", "/nope", "evil.example", nil, 403},
		{"method before token", "POST", "/latest/meta-data/", address, nil, 405},
		{"method before existence", "POST", "/nope", address, nil, 405},
		{"method with a token", "DELETE", "/nope", address, []string{withToken(token)}, 405},
		{"token before existence", "GET", "/nope", address, nil, 401},
		{"bad token before existence", "GET", "/nope", address, []string{withToken("x")}, 401},
		{"existence", "GET", "/nope", address, []string{withToken(token)}, 404},
		{"role", "GET", "/latest/meta-data/iam/security-credentials/nope", address, []string{withToken(token)}, 404},

		{"GET on the token path", "GET", "/latest/api/token", address, nil, 405},
		{"GET on the token path with a token", "GET", "/latest/api/token", address, []string{withToken(token)}, 405},
		{"HEAD on the token path", "HEAD", "/latest/api/token", address, nil, 405},
		{"POST on the token path", "POST", "/latest/api/token", address, []string{ttl}, 405},
		{"PUT on a dated token path", "PUT", "/2021-03-23/api/token", address, []string{ttl}, 403},
		{"PUT on an old token path", "PUT", "/1.0/api/token", address, []string{ttl}, 403},
		{"PUT on an unknown version's token path", "PUT", "/2021-03-24/api/token", address, []string{ttl}, 405},
		{"PUT elsewhere", "PUT", "/latest/meta-data/", address, []string{ttl}, 405},
		{"PUT on credentials", "PUT", credentialsPath, address, []string{withToken(token)}, 405},
		{"PUT on an unknown path", "PUT", "/nope", address, []string{ttl}, 405},
		{"PUT on the root", "PUT", "/", address, []string{ttl}, 405},
		{"PUT with a dot", "PUT", "/latest/./api/token", address, []string{ttl}, 405},
		{"PUT with an empty segment", "PUT", "/latest//api/token", address, []string{ttl}, 405},
		{"PUT escaped", "PUT", "/latest/api%2ftoken", address, []string{ttl}, 405},
		{"PUT with an extra slash", "PUT", "//latest/api/token", address, []string{ttl}, 200},
	} {
		a := raw(t, address, c.method, request(c.method, c.path, c.host, c.headers...))
		if a.status != c.status {
			t.Errorf("%s: %d, want %d", c.name, a.status, c.status)
		}
		if (a.status == 405) != (a.header.Get("Allow") != "") {
			t.Errorf("%s: %d with Allow %q", c.name, a.status, a.header.Get("Allow"))
		}
		if a.header.Get("Location") != "" {
			t.Errorf("%s: redirected to %s", c.name, a.header.Get("Location"))
		}
	}
	// A body that nobody read ends the connection.
	if a := raw(t, address, "POST", request("POST", "/nope", address, "Content-Length: 40")+"GET / HTTP/1.1\r\nHost: "); a.status != 405 || !a.closed {
		t.Errorf("POST with a body: %+v", a)
	}
}

// TestSmuggling: what follows a request that was refused for its framing is
// no request.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	token := newToken(t, address)
	inner := request("GET", credentialsPath, address, withToken(token))
	ttl := "X-aws-ec2-metadata-token-ttl-seconds: 60"
	for name, outer := range map[string]string{
		"body on GET":         request("GET", "/", address, fmt.Sprintf("Content-Length: %d", len(inner)), withToken(token)),
		"length and chunks":   request("GET", "/", address, "Content-Length: 5", "Transfer-Encoding: chunked", withToken(token)) + "0\r\n\r\n",
		"chunks on PUT":       request("PUT", "/latest/api/token", address, fmt.Sprintf("Content-Length: %d", 5+len(inner)), "Transfer-Encoding: chunked", ttl) + "0\r\n\r\n",
		"body on POST":        request("POST", "/", address, fmt.Sprintf("Content-Length: %d", len(inner))),
		"large body on PUT":   request("PUT", "/latest/api/token", address, "Content-Length: 4000", ttl) + strings.Repeat("x", 4000),
		"chunks on HTTP/1.0":  "PUT /latest/api/token HTTP/1.0\r\nHost: " + address + "\r\nTransfer-Encoding: chunked\r\n" + ttl + "\r\n\r\n0\r\n\r\n",
		"HEAD with a body":    request("HEAD", "/", address, "Content-Length: 4", withToken(token)) + "xxxx",
		"malformed chunk end": request("PUT", "/latest/api/token", address, "Transfer-Encoding: chunked", ttl) + "0\r\nX\r\n\r\n",
	} {
		c := dial(t, address)
		method := strings.SplitN(outer, " ", 2)[0]
		c.send(t, method, outer+inner)
		if a, err := c.read("GET"); err == nil {
			t.Errorf("%s: what follows was answered: %d", name, a.status)
			noSecret(t, name, a.body)
		}
		c.Close()
	}
}

// TestPipelined: requests in one write are answered one after the other, each
// judged by itself.
func TestPipelined(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	token := newToken(t, address)
	c := dial(t, address)
	defer c.Close()
	good, bad := request("GET", credentialsPath, address, withToken(token)), request("GET", credentialsPath, address)
	a := c.send(t, "GET", good+bad+good)
	if a.status != 200 {
		t.Errorf("first: %d", a.status)
	}
	for _, want := range []int{401, 200} {
		a, err := c.read("GET")
		if err != nil || a.status != want {
			t.Errorf("then: %d %v, want %d", a.status, err, want)
		}
	}
}

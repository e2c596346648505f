package imds

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/peer"
)

// FuzzPath compares match with a second, plainer reading of the same rules.
func FuzzPath(f *testing.F) {
	table := metadataTable(f)
	tree := compile(table, true)
	for _, p := range []string{
		"/", "//", "///", "/latest", "/latest/", "//latest/meta-data/", credentialsPath, "/2021-03-23/api/token", "/latest/api/token/", "/1.0/meta-data/iam/info",
		"/latest/meta-data/iam/security-credentials/..", "/latest/meta-data/iam/security-credentials/%2e", "/latest/%6deta-data/", "/latest/meta-data//", "/latest/./x",
		"/latest/meta-data/iam/security-credentials/a%2fb", "/latest/meta-data/iam/security-credentials/%", "/latest/meta-data/iam/security-credentials/\x00",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		n, param := tree.match(path)
		pattern, want := plainMatch(table, path)
		got := ""
		switch {
		case n == nil:
		case n.get != nil:
			got = n.get.pattern
		case n.put != nil:
			got = n.put.pattern
		}
		if got != pattern || got != "" && param != want {
			t.Errorf("%q: matched %q with %q, want %q with %q", path, got, param, pattern, want)
		}
		if strings.ContainsAny(param, "/\\\x00\n") || param == ".." || param == "." {
			t.Errorf("%q: parameter %q", path, param)
		}
	})
}

// plainMatch tries every route in turn.
func plainMatch(table []route, path string) (pattern, param string) {
	if strings.HasPrefix(path, "//") {
		path = path[1:]
	}
	path = strings.TrimSuffix(path, "/")
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
next:
	for _, r := range table {
		want := strings.Split(strings.TrimPrefix(r.pattern, "/"), "/")
		if len(want) != len(segments) {
			continue
		}
		param = ""
		for i, w := range want {
			s := segments[i]
			dated := strings.Contains(" "+strings.Join(versions(), " ")+" ", " "+s+" ") && !strings.Contains(s, " ") && s != ""
			switch {
			case w == "{version}":
				if s != latest && !dated {
					continue next
				}
			case w == "{date}":
				if !dated {
					continue next
				}
			case strings.HasPrefix(w, "{"):
				decoded, err := url.PathUnescape(s)
				if err != nil || decoded == "" || decoded == "." || decoded == ".." || strings.ContainsFunc(decoded, func(c rune) bool {
					return c == '/' || c == '\\' || c < 0x20 || c == 0x7f
				}) {
					continue next
				}
				param = decoded
			case s != w:
				continue next
			}
		}
		return r.pattern, param
	}
	return "", ""
}

// duplex is the server's end of a connection made of two pipes, so that a
// client can end its half as over TCP.
type duplex struct {
	net.Conn          // is read
	out      net.Conn // is written
}

func (d duplex) Write(p []byte) (int, error)        { return d.out.Write(p) }
func (d duplex) CloseWrite() error                  { return d.out.Close() }
func (d duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d duplex) Close() error                       { return errors.Join(d.Conn.Close(), d.out.Close()) }
func (d duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.Conn.SetReadDeadline(t), d.out.SetWriteDeadline(t))
}

// exchangeBytes sends in, ends, and returns all that comes back.
func exchangeBytes(t *testing.T, l *pipeListener, in []byte) []byte {
	t.Helper()
	send, read := net.Pipe()
	receive, write := net.Pipe()
	select {
	case l.conns <- duplex{read, write}:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody accepts")
	}
	deadline := time.Now().Add(20 * time.Second) // that nobody should need
	_ = send.SetDeadline(deadline)
	_ = receive.SetDeadline(deadline)
	go func() {
		_, _ = send.Write(in) // the server may have closed before
		_ = send.Close()
	}()
	out, err := io.ReadAll(receive)
	if err != nil {
		t.Errorf("%q: no end: %v", in, err)
	}
	_ = receive.Close()
	return out
}

// fuzzed is a server of each kind with everything that opens it. The corpus
// can't hold tokens that are good today: words stand for them.
type fuzzed struct {
	pipes [2]*pipeListener
	words map[string]string
	uid   string // of the next connection, "" for nobody
}

const (
	wordToken    = "THETOKEN" // of user 1000 for the metadata endpoint
	wordOther    = "OTHERTOKEN"
	wordGrant    = "THEGRANT" // of user 1000
	wordAny      = "ANYGRANT" // of user 1000, for any user
	wordRelative = "RELATIVE" // of user 1000
)

func newFuzzed(f *testing.F) *fuzzed {
	tokens := access.NewTokens([32]byte{1})
	mint := func(endpoint, uid string, generation uint64) string {
		return tokens.Mint(time.Now(), 6*time.Hour, access.Binding{Endpoint: endpoint, UID: uid, Generation: generation})
	}
	grants := newGrants(f)
	z := &fuzzed{pipes: [2]*pipeListener{newPipes(), newPipes()}}
	_, grant := addGrant(f, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000"})
	_, anybody := addGrant(f, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000", AnyUser: true})
	relative, _ := addGrant(f, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000", Relative: true})
	z.words = map[string]string{
		wordToken: mint("imds "+pipeAddress, "1000", 7), wordOther: mint("imds 127.0.0.1:1", "1000", 7),
		wordGrant: grant, wordAny: anybody, wordRelative: relative.ID,
	}
	rules, err := access.NewRules(access.RulesConfig{Owner: "1000"})
	if err != nil {
		f.Fatal(err)
	}
	identify := func(net.Conn) (peer.Caller, error) {
		if z.uid == "" {
			return peer.Caller{}, peer.ErrUnidentified
		}
		return peer.Caller{UID: z.uid, Via: peer.ViaTCP}, nil
	}
	servers := [2]*Server{
		NewMetadata(MetadataConfig{
			Listener: z.pipes[0], Profile: "dev", Broker: newBroker(), Facts: testFacts, Check: rules.Check, AllowUnidentified: true,
			identify: identify, machine: func() machine { return testMachine },
			Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
		}),
		NewContainer(ContainerConfig{Listener: z.pipes[1], Broker: newBroker(), Grants: grants, Check: rules.CheckGrant, AllowUnidentified: true, identify: identify}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, len(servers))
	for _, s := range servers {
		go func() { done <- s.Run(ctx) }()
	}
	f.Cleanup(func() {
		cancel()
		for range servers {
			if err := <-done; err != nil {
				f.Error(err)
			}
		}
	})
	return z
}

// try makes one connection. The first byte of in chooses the endpoint and
// the caller; the rest is sent.
func (z *fuzzed) try(t *testing.T, in []byte) {
	if len(in) == 0 {
		return
	}
	kind := int(in[0]) % 2
	z.uid = []string{"1000", "1001", ""}[int(in[0])/2%3]
	in = in[1:]
	for word, value := range z.words {
		in = bytes.ReplaceAll(in, []byte(word), []byte(value))
	}
	out := exchangeBytes(t, z.pipes[kind], in)
	secrets := bytes.Count(out, []byte(canarySecret))
	if may := z.mayHave(kind, in); secrets > may {
		t.Errorf("endpoint %d, caller %q: %d secrets for %q, which may have %d:\n%s", kind, z.uid, secrets, in, may, out)
	}
	for word, value := range z.words {
		if bytes.Contains(out, []byte(value)) {
			t.Errorf("%s is told again: %q", word, out)
		}
	}
}

// mayHave counts the requests in the bytes, as they are read by the standard
// library, that may be answered with a secret.
func (z *fuzzed) mayHave(kind int, in []byte) int {
	n := 0
	r := bufio.NewReader(bytes.NewReader(in))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return n
		}
		if z.may(kind, req) {
			n++
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return n
		}
	}
}

func (z *fuzzed) may(kind int, r *http.Request) bool {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, "9911"
	}
	if host != "127.0.0.1" && !strings.EqualFold(host, "localhost") || port != "9911" || browserOrProxy(r.Header) || r.ContentLength != 0 || r.Method != "GET" {
		return false
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if strings.HasPrefix(path, "//") {
		path = path[1:]
	}
	if kind == 0 {
		pattern, param := plainMatch(z.table(), path)
		return z.uid == "1000" && strings.HasPrefix(pattern, "/{version}/meta-data/iam/security-credentials") && param == testRole &&
			slices.Equal(r.Header["X-Aws-Ec2-Metadata-Token"], []string{z.words[wordToken]})
	}
	last, err := url.PathUnescape(path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return false
	}
	if strings.HasPrefix(path, "/v2/credentials/") {
		return z.uid == "1000" && last == z.words[wordRelative]
	}
	var token string
	if values := r.Header["Authorization"]; len(values) == 1 {
		token = values[0]
	}
	return strings.HasPrefix(path, "/v1/credentials/") && last == "dev" &&
		(z.uid == "1000" && token == z.words[wordGrant] || z.uid != "" && token == z.words[wordAny])
}

// table is the metadata service's, as far as it has secrets.
func (z *fuzzed) table() []route {
	return []route{{pattern: "/{version}/meta-data/iam/security-credentials-extended/{role}"}, {pattern: "/{version}/meta-data/iam/security-credentials/{role}"}}
}

// browserOrProxy finds what only browsers and proxies send.
func browserOrProxy(h http.Header) bool {
	for name := range h {
		for _, prefix := range []string{"origin", "referer", "sec-fetch-", "x-forwarded-", "forwarded", "via", "x-http-method-override", "x-method-override"} {
			if strings.HasPrefix(strings.ToLower(name), prefix) {
				return true
			}
		}
	}
	return false
}

// FuzzHandler sends raw bytes to whole servers: a secret in what comes back
// implies an allowed Host, a good token or grant, a caller who may use it, and
// none of what browsers and proxies send.
func FuzzHandler(f *testing.F) {
	z := newFuzzed(f)
	good := request("GET", credentialsPath, pipeAddress, withToken(wordToken))
	grant := request("GET", "/v1/credentials/dev", pipeAddress, authorization(wordGrant))
	put := request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60", "Transfer-Encoding: chunked")
	for _, s := range []string{
		good, good + good + good, strings.Replace(good, "127.0.0.1:9911", "evil.example", 1), strings.Replace(good, wordToken, wordOther, 1),
		strings.Replace(good, "\r\n\r\n", "\r\nOrigin: http://x\r\n\r\n", 1), strings.ReplaceAll(good, "\r\n", "\n"), strings.Replace(good, "\r\nX", "\r\n X", 1),
		request("GET", "http://evil.example"+credentialsPath, pipeAddress, withToken(wordToken)), put + "0\r\n\r\n" + good, put + "3;x=y\r\nabc\r\n0\r\n\r\n" + good,
		request("GET", "/", pipeAddress, "Content-Length: 200") + good, request("GET", "/", pipeAddress, "Content-Length: 0", "Content-Length: 0") + good,
		request("HEAD", credentialsPath, "localhost", withToken(wordToken)), request("PUT", credentialsPath, pipeAddress, withToken(wordToken), "Content-Length: 3") + "abc" + good,
		request("GET", "//2021-03-23/meta-data/iam/security-credentials-extended/%64eploy?x", "LOCALHOST:9911", withToken(wordToken)),
		"GET " + credentialsPath + " HTTP/1.0\r\nHost: localhost\r\n" + withToken(wordToken) + "\r\n\r\n", "\x00", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", request("GET", credentialsPath, pipeAddress, withToken(wordToken), "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
		"\x16\x03\x01\x00\xa5\x01\x00\x00", request("OPTIONS", "*", pipeAddress), request("CONNECT", pipeAddress, pipeAddress) + good,
		grant, grant + grant, strings.Replace(grant, wordGrant, wordAny, 1), strings.Replace(grant, "/dev", "/other", 1), request("GET", "/v2/credentials/"+wordRelative, pipeAddress),
		strings.Replace(grant, "\r\n\r\n", "\r\nAuthorization: x\r\n\r\n", 1),
	} {
		for who := range byte(6) {
			f.Add(append([]byte{who}, s...))
		}
	}
	f.Fuzz(z.try)
}

package imds

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"keyfob/internal/access"
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

// FuzzConnection writes raw bytes to a server: a secret in what comes back
// implies an allowed Host, a good token and no header of a browser or proxy
// in one of the requests as net/http reads them.
func FuzzConnection(f *testing.F) {
	tokens := access.NewTokens([32]byte{1})
	token := tokens.Mint(time.Now(), 6*time.Hour, access.Binding{Endpoint: "imds " + pipeAddress, UID: "1000", Generation: 7})
	const mark = "THETOKEN" // the corpus can't hold a token that is good today
	good := request("GET", credentialsPath, pipeAddress, withToken(mark))
	for _, s := range []string{
		good, good + good, strings.Replace(good, "127.0.0.1:9911", "evil.example", 1), strings.Replace(good, mark, "x", 1),
		request("GET", credentialsPath, pipeAddress, withToken(mark), "Origin: http://x"),
		request("GET", "http://evil.example"+credentialsPath, pipeAddress, withToken(mark)),
		request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60", "Transfer-Encoding: chunked") + "0\r\n\r\n" + good,
		request("GET", "/", pipeAddress, "Content-Length: 200") + good,
		request("HEAD", credentialsPath, "localhost", withToken(mark)),
		"GET " + credentialsPath + " HTTP/1.0\r\n" + withToken(mark) + "\r\n\r\n",
		"\x00", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	const end = "\r\n\r\nGET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n"
	l := newPipes()
	s := NewMetadata(MetadataConfig{
		Listener: l, Profile: "dev", Broker: newBroker(), Facts: testFacts, identify: someone("1000"),
		Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-done })

	f.Fuzz(func(t *testing.T, in []byte) {
		in = bytes.ReplaceAll(in, []byte(mark), []byte(token))
		c := l.dial(t)
		out := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(c)
			out <- b
		}()
		// End with a request that has an answer we can see, or, where the
		// bytes left the server in the middle of something, with a close.
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = c.Write(in)
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = io.WriteString(c, end)
		in = append(in, end...)
		select {
		case b := <-out:
			judge(t, in, b, token)
		case <-time.After(200 * time.Millisecond):
			c.Close()
			judge(t, in, <-out, token)
		}
		c.Close()
	})
}

func judge(t *testing.T, in, out []byte, token string) {
	if !bytes.Contains(out, []byte(canarySecret)) {
		return
	}
	r := bufio.NewReader(bytes.NewReader(in))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			break
		}
		host, port, err := net.SplitHostPort(req.Host)
		if err != nil {
			host, port = req.Host, "9911"
		}
		if (host == "127.0.0.1" || strings.EqualFold(host, "localhost")) && port == "9911" && req.Header.Get("X-Aws-Ec2-Metadata-Token") == token &&
			!browserOrProxy(req.Header) && req.ContentLength == 0 && strings.HasPrefix(req.RequestURI, "/") && req.Method == "GET" {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
	}
	t.Errorf("a secret for %q", in)
}

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

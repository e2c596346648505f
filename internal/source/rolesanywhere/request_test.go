package rolesanywhere

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
)

// wire is a request as it came in.
type wire struct {
	Method, Target, Host, Body string
	Headers                    map[string]string
}

// capture gets the request of one fetch.
func capture(t *testing.T, w *world, path string, kv ...string) wire {
	t.Helper()
	var got wire
	server := httptest.NewServer(http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = wire{Method: r.Method, Target: r.RequestURI, Host: r.Host, Body: string(b), Headers: map[string]string{}}
		for k, v := range r.Header {
			got.Headers[strings.ToLower(k)] = strings.Join(v, "|")
		}
		a.WriteHeader(500)
	}))
	defer server.Close()
	w.url = server.URL + path
	if _, err := w.fetch(t, w.source(t, kv...)); err == nil {
		t.Fatal("no error")
	}
	return got
}

// TestRequest: the request is what the official helper sends.
func TestRequest(t *testing.T) {
	w := newWorld(t)
	mid := newAuthority(t, w.root, "mid")
	leaf, key := mid.leaf(t, true)
	const odd = "arn:aws:iam::111122223333:role/team/a+b=c,d.e@f-g_h"
	got := capture(t, w, "/", "certificate", w.file(t, "c.pem", pemOf(leaf, mid.cert, w.root.cert), keyPEM(t, key)), "role_arn", odd, "duration_seconds", "900", "role_session_name", "n1")
	if got.Method != "POST" || got.Target != "/sessions?profileArn="+escape(fakeaws.DefaultAnywhereProfileARN)+
		"&roleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fteam%2Fa%2Bb%3Dc%2Cd.e%40f-g_h&trustAnchorArn="+escape(fakeaws.DefaultTrustAnchorARN) {
		t.Errorf("%s %s", got.Method, got.Target)
	}
	if got.Body != `{"durationSeconds":900,"roleSessionName":"n1"}` {
		t.Error(got.Body)
	}
	h := got.Headers
	if h["content-type"] != "application/json" || h["x-amz-x509"] != base64.StdEncoding.EncodeToString(leaf.Raw) || h["x-amz-x509-chain"] != base64.StdEncoding.EncodeToString(mid.cert.Raw) {
		t.Errorf("%v", h)
	}
	want := "AWS4-X509-RSA-SHA256 Credential=" + leaf.SerialNumber.String() + "/" + h["x-amz-date"][:8] +
		"/eu-west-1/rolesanywhere/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-x509;x-amz-x509-chain, Signature="
	if !strings.HasPrefix(h["authorization"], want) {
		t.Errorf("%s, want %s", h["authorization"], want)
	}
	leaf, key = w.root.leaf(t, false)
	got = capture(t, w, "/prefix", "certificate", w.file(t, "c.pem", pemOf(leaf, w.root.cert), keyPEM(t, key)))
	if _, ok := got.Headers["x-amz-x509-chain"]; ok || got.Body != `{"durationSeconds":3600}` || !strings.HasPrefix(got.Target, "/prefix/sessions?") ||
		!strings.HasPrefix(got.Headers["authorization"], "AWS4-X509-ECDSA-SHA256 ") || !strings.Contains(got.Headers["authorization"], "SignedHeaders=content-type;host;x-amz-date;x-amz-x509, ") {
		t.Errorf("%+v", got)
	}
}

// checker verifies a request by its own canonical form: argv[1] is the
// request, argv[2] the file for what was signed, argv[3] that for the
// signature, argv[4] that for the certificate.
const checker = `
import base64, hashlib, json, re, sys
from urllib.parse import parse_qsl, quote, urlsplit
r = json.load(open(sys.argv[1]))
u = urlsplit(r["Target"])
headers = {k.lower(): v for k, v in r["Headers"].items()}
headers["host"] = r["Host"]
m = re.fullmatch(r"(\S+) Credential=([0-9]+)/(\d{8})/([^/]+)/rolesanywhere/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]+)", headers["authorization"])
algorithm, serial, day, region, names, signature = m.groups()
names = names.split(";")
assert names == sorted(names) and {"host", "x-amz-date", "x-amz-x509", "content-type"} <= set(names)
query = "&".join(sorted(quote(k, safe="-_.~") + "=" + quote(v, safe="-_.~") for k, v in parse_qsl(u.query, strict_parsing=True)))
canonical = "\n".join([r["Method"], quote(u.path, safe="/-_.~"), query,
    "".join(n + ":" + " ".join(headers[n].split()) + "\n" for n in names), ";".join(names), hashlib.sha256(r["Body"].encode()).hexdigest()])
date = headers["x-amz-date"]
assert re.fullmatch(r"\d{8}T\d{6}Z", date) and date[:8] == day
signed = "\n".join([algorithm, date, day + "/" + region + "/rolesanywhere/aws4_request", hashlib.sha256(canonical.encode()).hexdigest()])
open(sys.argv[2], "w").write(signed)
open(sys.argv[3], "wb").write(bytes.fromhex(signature))
open(sys.argv[4], "wb").write(base64.b64decode(headers["x-amz-x509"], validate=True))
print(algorithm, serial)
`

// TestSecondImplementation: Python builds the canonical request from what
// came over the wire, and OpenSSL verifies the signature with the certificate
// that was sent.
func TestSecondImplementation(t *testing.T) {
	python, openssl := tool(t, "python3"), tool(t, "openssl")
	for _, isRSA := range []bool{false, true} {
		w := newWorld(t)
		mid := newAuthority(t, w.root, "mid")
		leaf, key := mid.leaf(t, isRSA)
		got := capture(t, w, "", "certificate", w.file(t, "c.pem", pemOf(leaf, mid.cert), keyPEM(t, key)), "role_arn", "arn:aws:iam::111122223333:role/a/x+y=z,w@v")
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		file := func(name string) string { return w.dir + "/" + name }
		if err := os.WriteFile(file("request"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		said := string(run(t, nil, python, "-c", checker, file("request"), file("signed"), file("signature"), file("cert.der")))
		want := "AWS4-X509-ECDSA-SHA256 "
		if isRSA {
			want = "AWS4-X509-RSA-SHA256 "
		}
		if said != want+leaf.SerialNumber.String()+"\n" {
			t.Errorf("%s", said)
		}
		public := run(t, nil, openssl, "x509", "-inform", "DER", "-in", file("cert.der"), "-noout", "-pubkey")
		if err := os.WriteFile(file("public"), public, 0o600); err != nil {
			t.Fatal(err)
		}
		verify := []string{openssl, "dgst", "-sha256", "-verify", file("public"), "-signature", file("signature")}
		if out := run(t, nil, append(verify, file("signed"))...); !strings.Contains(string(out), "Verified OK") {
			t.Errorf("%s", out)
		}
		if out, err := try(t, nil, append(verify, file("request"))...); err == nil {
			t.Errorf("anything is verified: %s", out)
		}
	}
}

package awsclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/profiles"
)

const (
	canaryID     = "AKIAQAAAAAAACANARYID"
	canarySecret = "canary-secret-wJalrXUtnFEMI"
	canaryToken  = "canary-token-FwoGZXIvYXdzEBY"
)

const identityAnswer = `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>` +
	`<Arn>arn:aws:iam::111122223333:user/alice</Arn><UserId>AIDAQ</UserId><Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, a.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (a *authority) leaf(t *testing.T, until time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: until.Add(-2 * time.Hour), NotAfter: until, DNSNames: names}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// upstream is an HTTP server that keeps what it was asked.
type upstream struct {
	*httptest.Server
	mu  sync.Mutex // guards got
	got []*http.Request
}

func serve(t *testing.T, cfg *tls.Config, h http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.got = append(u.got, r)
		u.mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body)
		h(w, r)
	}))
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	if cfg != nil {
		u.TLS = cfg
		u.StartTLS()
	} else {
		u.Start()
	}
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) requests() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*http.Request(nil), u.got...)
}

func (u *upstream) addr() string { return u.Listener.Addr().String() }

func answerIdentity(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/xml")
	_, _ = io.WriteString(w, identityAnswer)
}

// direct is a pool that never uses a proxy and dials addr for every host.
func direct(t *testing.T, addr string) *Pool {
	t.Helper()
	p := NewPool(PoolConfig{
		Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
		Dial: func(ctx context.Context, network, a string) (net.Conn, error) {
			if addr != "" {
				a = addr
			}
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, a)
		},
	})
	t.Cleanup(p.CloseIdle)
	return p
}

// call asks who the canary's keys are and returns what was seen.
func call(t *testing.T, c profiles.Client, opt Options) (*Seen, error) {
	t.Helper()
	if opt.Seen == nil {
		opt.Seen = new(Seen)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := STS(ctx, c, credentials.NewStaticCredentialsProvider(canaryID, canarySecret, canaryToken), opt)
	if err != nil {
		return opt.Seen, err
	}
	_, err = client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	return opt.Seen, err
}

// signedFor takes region and service out of a signature.
func signedFor(r *http.Request) string {
	parts := strings.Split(r.Header.Get("Authorization"), "/")
	if len(parts) < 4 {
		return ""
	}
	return parts[2] + "/" + parts[3]
}

func oneLine(t *testing.T, f Failure) {
	t.Helper()
	if f.Text == "" || strings.ContainsAny(f.Text, "\r\n") || strings.HasSuffix(f.Text, ".") || len(f.Text) > 600 {
		t.Errorf("text %q is not one clause", f.Text)
	}
	for _, s := range []string{f.Text, f.Hint, f.Message, f.Err.Error()} {
		if strings.Contains(s, canarySecret) || strings.Contains(s, canaryToken) {
			t.Errorf("a secret stands in %q", s)
		}
	}
}

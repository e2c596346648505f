package awsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Limits of a connection. A refresh has cred.FetchTimeout for everything, so
// that each step must fail earlier to be named.
const (
	dialTimeout   = 10 * time.Second
	tlsTimeout    = 10 * time.Second
	headerTimeout = 25 * time.Second
	// idleTimeout is short: the next refresh of a link is half an hour
	// away, and idle connections are memory. It still serves the bursts of
	// a start or a wake-up.
	idleTimeout     = 10 * time.Second
	maxIdlePerHost  = 8
	maxConnsPerHost = 64
	maxHeader       = 64 << 10
	maxBody         = 1 << 20
)

// PoolConfig is what a Pool is made from; the zero value is right outside
// tests.
type PoolConfig struct {
	// Proxy returns the proxy of a URL, nil for none; the default follows
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY as they were when the process
	// first called (http.ProxyFromEnvironment).
	Proxy func(*url.URL) (*url.URL, error)
	// Dial opens connections; the default is a net.Dialer's DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Pool holds what clients share: one transport per CA bundle, however many
// profiles name it, and each upstream's clock offset. It is safe for
// concurrent use and starts nothing of its own.
type Pool struct {
	proxy func(*url.URL) (*url.URL, error)
	dial  func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex               // guards bundles and skews
	bundles map[string]*bundle       // by path of the CA bundle, "" for the system's roots
	skews   map[string]time.Duration // by host, only where it exceeds SkewLimit
}

// bundle is a transport and the state of the file that its roots are from.
type bundle struct {
	transport *http.Transport
	info      os.FileInfo // nil for the system's roots
}

// NewPool returns an empty Pool.
func NewPool(c PoolConfig) *Pool {
	p := &Pool{proxy: c.Proxy, dial: c.Dial, bundles: map[string]*bundle{}, skews: map[string]time.Duration{}}
	if p.proxy == nil {
		p.proxy = func(u *url.URL) (*url.URL, error) { return http.ProxyFromEnvironment(&http.Request{URL: u}) }
	}
	if p.dial == nil {
		p.dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	return p
}

// CloseIdle closes the connections that no call uses.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.bundles {
		b.transport.CloseIdleConnections()
	}
}

// transport returns the shared transport of a CA bundle. The file is looked
// at on each call and read again when it has changed.
func (p *Pool) transport(path string) (*http.Transport, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.bundles[path]
	if path == "" {
		if b == nil {
			b = &bundle{transport: p.newTransport(nil)}
			p.bundles[path] = b
		}
		return b.transport, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, badBundle(path, err, "")
	}
	if b != nil && os.SameFile(b.info, info) && b.info.ModTime().Equal(info.ModTime()) && b.info.Size() == info.Size() {
		return b.transport, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, badBundle(path, err, "")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, badBundle(path, nil, "it holds no certificate in PEM form")
	}
	if b != nil {
		b.transport.CloseIdleConnections()
	}
	b = &bundle{transport: p.newTransport(roots), info: info}
	p.bundles[path] = b
	return b.transport, nil
}

func badBundle(path string, err error, why string) error {
	if err != nil {
		why = reason(err)
	}
	return &SettingsError{
		Text: "cannot use the CA bundle " + path + ": " + why,
		Help: "correct ca_bundle, or AWS_CA_BUNDLE in the environment of keyfobd",
		Err:  err,
	}
}

func (p *Pool) newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return p.proxy(r.URL) },
		OnProxyConnectResponse: onProxyConnect,
		DialContext:            p.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxConnsPerHost:        maxConnsPerHost,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // so that maxBody bounds what is held
	}
}

// Reach opens a plain TCP connection to the host of u, or to the proxy that
// a request to it would take, and closes it: nil means that there is a way.
// It sends nothing. ctx bounds it, and 10 s do.
func (p *Pool) Reach(ctx context.Context, u *url.URL) error {
	if proxy, err := p.proxy(u); err != nil {
		return err
	} else if proxy != nil {
		u = proxy
	}
	port := u.Port()
	if port == "" {
		switch u.Scheme {
		case "http":
			port = "80"
		case "socks5", "socks5h":
			port = "1080"
		default:
			port = "443"
		}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := p.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	return c.Close()
}

// Skew is the clock of host (as in a URL) minus ours as its last answer told
// it, 0 when the two agree within SkewLimit or nothing is known.
func (p *Pool) Skew(host string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.skews[host]
}

func (p *Pool) setSkew(host string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d == 0 {
		delete(p.skews, host)
	} else {
		p.skews[host] = d
	}
}

// Signer signs with the upstream's time where it is known to differ from
// ours: AWS refuses signatures that are more than five minutes off. It fits
// the HTTPSignerV4 option of every service client.
type Signer struct {
	v4   *v4.Signer
	pool *Pool
}

// Signer returns a Signer that knows the Pool's clock offsets.
func (p *Pool) Signer() *Signer { return &Signer{v4: v4.NewSigner(), pool: p} }

// SignHTTP implements the HTTPSignerV4 interface of the service clients.
func (s *Signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, payloadHash, service, region string, at time.Time, opts ...func(*v4.SignerOptions)) error {
	return s.v4.SignHTTP(ctx, c, r, payloadHash, service, region, at.Add(s.pool.Skew(r.URL.Host)), opts...)
}

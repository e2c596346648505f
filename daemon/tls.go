package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"keyfob/imds"
	"keyfob/internal/logging"
	"keyfob/internal/settings"
	"keyfob/internal/source/rolesanywhere"
)

// longestPEM is more than any certificate with its chain has, in bytes.
const longestPEM = 1 << 20

// certificate reads what an endpoint of the settings shows by TLS, nil for one
// that speaks plain http. Its errors name file, line and setting. reading is
// told of both files before they are read, so that a renewed pair is seen
// whatever was wrong with the one before.
func (c *config) certificate(e *settings.Endpoint, reading func(path string)) (*imds.Certificate, error) {
	if e.TLSCert == "" {
		return nil, nil
	}
	reading(e.TLSCert)
	reading(e.TLSKey)
	if err := c.checkFiles(e.TLSCert, e.TLSKey); err != nil {
		return nil, err
	}
	chain, err := readPEM(e.TLSCert, nil)
	if err != nil {
		return nil, c.Bad(e.Key()+".tls_cert", hintOf(err), "%v", err)
	}
	key, err := readPEM(e.TLSKey, checkKeyFile)
	if err != nil {
		return nil, c.Bad(e.Key()+".tls_key", hintOf(err), "%v", err)
	}
	defer clear(key)
	cert, err := imds.NewCertificate(chain, key)
	if err != nil {
		return nil, c.Bad(e.Key()+".tls_cert", hintOf(err), "%s with %s: %v", e.TLSCert, e.TLSKey, err)
	}
	return cert, nil
}

// readPEM reads a file that check, where it is not nil, finds nothing wrong
// with.
func readPEM(path string, check func(path string, st os.FileInfo) error) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	}
	if check != nil {
		if err := check(path, st); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, longestPEM))
}

// certificateWarning says what is, or soon will be, wrong with the time of an
// endpoint's certificate, "" for nothing. Such an endpoint serves on: it is
// the clients that refuse it.
func (e *endpointConfig) certificateWarning(now time.Time) string {
	if e.certificate == nil {
		return ""
	}
	what := fmt.Sprintf("the certificate of the endpoint %s, %s, ", e.Listen, e.TLSCert)
	begins, ends := e.certificate.Begins(), e.certificate.Ends()
	switch {
	case now.After(ends):
		return what + "ended at " + stampText(ends) + ": clients refuse it; put a new one in its place"
	case now.Before(begins):
		return what + "begins at " + stampText(begins) + ": clients refuse it until then"
	case ends.Sub(now) <= rolesanywhere.WarnBefore:
		return what + "ends at " + stampText(ends) + ": put a new one in its place"
	}
	return ""
}

// certificateEvery is how often the log is told of a certificate that ends.
const certificateEvery = 24 * time.Hour

// lookAfterCertificates reads certificates again that were renewed where no
// event told of it (files that are mounted into a container), and warns of
// those that end. It is called once a minute.
func (d *daemon) lookAfterCertificates(ctx context.Context) {
	if !d.conf().hasTLS() {
		return
	}
	d.freshSettings(ctx)
	d.warnOfCertificates(time.Now())
}

// warnOfCertificates tells the log, of each certificate once a day.
func (d *daemon) warnOfCertificates(now time.Time) {
	for _, e := range d.endpoints() {
		warning := e.now.Load().certificateWarning(now)
		if last := e.warned.Load(); warning == "" || last != nil && now.Sub(*last) < certificateEvery {
			continue
		}
		e.warned.Store(&now)
		d.log.WithField(logging.Endpoint, e.kind+" "+e.address()).Warn(warning)
	}
}

// hasTLS reports whether an endpoint of the settings speaks TLS.
func (c *config) hasTLS() bool {
	for i := range c.endpoints {
		if c.endpoints[i].certificate != nil {
			return true
		}
	}
	return false
}

// url is the endpoint's, without a path, as a client must write it: where it
// speaks TLS by a name that the certificate is for.
func (e *endpoint) url() string {
	address, cert := e.address(), e.now.Load().certificate
	if cert == nil {
		return "http://" + address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "https://" + address
	}
	if !cert.Covers(host) {
		for _, name := range append(cert.Names(), e.now.Load().Hosts...) {
			if !strings.Contains(name, "*") && cert.Covers(name) {
				host = strings.TrimSuffix(name, ".")
				break
			}
		}
	}
	switch {
	case port != "443":
		return "https://" + net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		return "https://[" + host + "]"
	}
	return "https://" + host
}

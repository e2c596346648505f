package imds

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyfob/internal/cred"
)

// Certificate is what a container endpoint that speaks TLS shows for itself.
// It is not changed after it was made: a renewed one is another.
type Certificate struct {
	pair tls.Certificate
	leaf *x509.Certificate
}

// NewCertificate makes one of two files' content, in PEM: the certificate,
// with those of intermediate authorities behind it, and its private key, which
// is not encrypted. Its errors name what is wrong with the two, and have a
// hint. Whether the certificate is valid now is not judged: see Begins, Ends.
func NewCertificate(chain, key []byte) (*Certificate, error) {
	pair, err := tls.X509KeyPair(chain, key)
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "private key does not match"), strings.Contains(err.Error(), "private key type does not match"):
		return nil, cred.WithHint(errors.New("the private key is not that of the certificate"),
			"the certificate and the key that were made together; where the file holds several certificates the endpoint's own is the first")
	default:
		return nil, cred.WithHint(fmt.Errorf("it is no certificate with its key: %s", strings.TrimPrefix(err.Error(), "tls: ")),
			"two files in PEM: one with BEGIN CERTIFICATE, one with BEGIN PRIVATE KEY, which is not encrypted")
	}
	leaf := pair.Leaf
	if leaf == nil { // with GODEBUG=x509keypairleaf=0
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
		pair.Leaf = leaf
	}
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0 {
		return nil, cred.WithHint(errors.New("the certificate is for no name and no address"), "clients look at the extension subjectAltName alone, and not at the common name")
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil, cred.WithHint(errors.New("the certificate is not for servers"), "its extended key usage must have serverAuth")
	}
	return &Certificate{pair: pair, leaf: leaf}, nil
}

// Names are those that the certificate is for, as they stand in it (also with
// wildcards), and behind them the addresses.
func (c *Certificate) Names() []string {
	names := slices.Clone(c.leaf.DNSNames)
	for _, ip := range c.leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// Covers reports whether the certificate is for a name or an address, which
// may stand in brackets.
func (c *Certificate) Covers(host string) bool {
	return !strings.Contains(host, "*") && c.leaf.VerifyHostname(host) == nil
}

// Begins is when the certificate begins to be valid.
func (c *Certificate) Begins() time.Time { return c.leaf.NotBefore }

// Ends is when the certificate, or the first of the intermediate ones that
// come with it, ends to be valid.
func (c *Certificate) Ends() time.Time {
	ends := c.leaf.NotAfter
	for _, der := range c.pair.Certificate[1:] {
		if other, err := x509.ParseCertificate(der); err == nil && other.NotAfter.Before(ends) {
			ends = other.NotAfter
		}
	}
	return ends
}

// TLS is the certificate as package crypto/tls has it, for a client that must
// know that it talks to this very endpoint.
func (c *Certificate) TLS() *tls.Certificate { return &c.pair }

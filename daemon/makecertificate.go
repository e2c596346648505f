package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyfob/internal/atomicfile"
	"keyfob/internal/cred"
	"keyfob/internal/settings"
)

// What make-certificate writes into its directory.
const (
	authorityFile   = "ca.pem"
	certificateFile = "cert.pem"
	keyFile         = "key.pem"
)

// longestCertificate is in days. Apple's systems take no certificate that
// lasts longer, whoever made it (https://support.apple.com/en-us/103769).
const longestCertificate = 825

// makeCertificate makes an authority that can vouch for these names and
// addresses alone, and its one certificate, for an endpoint's tls_cert and
// tls_key. The authority's key is never written: it signs once. Without force
// it replaces nothing. stdout is told the two settings, stderr the rest.
func makeCertificate(dir string, names []string, days int, force bool, stdout, stderr io.Writer) error {
	if days < 1 || days > longestCertificate {
		return fmt.Errorf("cannot make a certificate for %d days: it may be 1 to %d", days, longestCertificate)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	made, err := newPair(names, time.Duration(days)*24*time.Hour)
	if err != nil {
		return err
	}
	defer clear(made.key)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the certificate's directory: %w", err)
	}
	files := []struct {
		name string
		mode fs.FileMode
		text []byte
	}{{keyFile, 0o600, made.key}, {certificateFile, 0o644, made.certificate}, {authorityFile, 0o644, made.authority}}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); err == nil && !force {
			return cred.WithHint(fmt.Errorf("cannot make a certificate: %s exists", path), "--force replaces it; clients then need the new "+authorityFile)
		}
	}
	for _, f := range files {
		if err := atomicfile.Write(filepath.Join(dir, f.name), f.text, atomicfile.Options{Mode: f.mode}); err != nil {
			return fmt.Errorf("cannot write the certificate: %w", err)
		}
	}
	fmt.Fprintf(stderr, "for %s, until %s; clients trust it by %s\n", strings.Join(names, ", "), stampText(made.ends), filepath.Join(dir, authorityFile))
	_, err = fmt.Fprintf(stdout, "tls_cert = %q\ntls_key = %q\n", filepath.Join(dir, certificateFile), filepath.Join(dir, keyFile))
	return err
}

// pair is an authority with a certificate of its own, in PEM.
type pair struct {
	authority, certificate, key []byte
	ends                        time.Time
}

func newPair(names []string, life time.Duration) (*pair, error) {
	now := time.Now().UTC().Truncate(time.Second)
	begins := now.Add(-time.Hour) // for machines whose clock is behind
	authority := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "keyfob, authority of " + names[0]},
		NotBefore:             begins,
		NotAfter:              begins.Add(life),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		// Whoever trusts it trusts it for nothing else.
		PermittedDNSDomainsCritical: true,
	}
	leaf := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "keyfob endpoint"}, // no name: OpenSSL would hold it against the constraints
		NotBefore:             begins,
		NotAfter:              authority.NotAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		ip := net.ParseIP(strings.Trim(name, "[]"))
		switch {
		case ip == nil && !settings.IsHost(name):
			return nil, cred.WithHint(fmt.Errorf("cannot make a certificate for %q", name), "names and addresses, without scheme and port")
		case ip == nil:
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			leaf.DNSNames = append(leaf.DNSNames, name)
			authority.PermittedDNSDomains = append(authority.PermittedDNSDomains, name)
			continue
		case ip.IsUnspecified():
			return nil, fmt.Errorf("cannot make a certificate for %s: it is every address", ip)
		}
		bits := 128
		if four := ip.To4(); four != nil {
			ip, bits = four, 32
		}
		leaf.IPAddresses = append(leaf.IPAddresses, ip)
		authority.PermittedIPRanges = append(authority.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
	}
	// None permitted would be all permitted.
	if len(leaf.DNSNames) == 0 {
		authority.ExcludedDNSDomains = []string{""}
	}
	if len(leaf.IPAddresses) == 0 {
		authority.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return nil, err
	}
	if authority, err = x509.ParseCertificate(authorityDER); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, authorityKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(keyDER)
	return &pair{
		authority:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityDER}),
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		ends:        leaf.NotAfter,
	}, nil
}

package fakeawstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Issuer is a certificate authority for Roles Anywhere, or one below it.
type Issuer struct {
	Cert *x509.Certificate
	PEM  []byte
	key  crypto.Signer
	up   *Issuer
}

// LeafSpec describes a client's certificate. The zero value is one that AWS
// takes, with an EC key.
type LeafSpec struct {
	RSA                 bool
	CommonName          string        // default "machine.example.com"
	NotBefore, NotAfter time.Duration // from now; default -1 h and 24 h
	IsCA                bool          // AWS refuses it
	NoDigitalSignature  bool          // AWS refuses it
}

// Leaf is a client's certificate with its key.
type Leaf struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// CertPEM is the certificate, ChainPEM the intermediates below the
	// trust anchor (the issuer first; empty without), KeyPEM the key in
	// PKCS #8.
	CertPEM, ChainPEM, KeyPEM []byte
	Chain                     []*x509.Certificate
}

// NewIssuer makes a root authority: its PEM is a trust anchor's.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	return issue(t, nil, "test root")
}

// Intermediate makes an authority below.
func (i *Issuer) Intermediate(t testing.TB) *Issuer {
	t.Helper()
	return issue(t, i, "test intermediate")
}

func issue(t testing.TB, up *Issuer, name string) *Issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	i := &Issuer{key: key, up: up}
	i.Cert, i.PEM = sign(t, x, up, key.Public(), key)
	return i
}

// Leaf makes a client's certificate.
func (i *Issuer) Leaf(t testing.TB, spec LeafSpec) *Leaf {
	t.Helper()
	var key crypto.Signer
	var err error
	if spec.RSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	if spec.CommonName == "" {
		spec.CommonName = "machine.example.com"
	}
	if spec.NotBefore == 0 {
		spec.NotBefore = -time.Hour
	}
	if spec.NotAfter == 0 {
		spec.NotAfter = 24 * time.Hour
	}
	x := &x509.Certificate{SerialNumber: serial(t), Subject: pkix.Name{CommonName: spec.CommonName}, NotBefore: time.Now().Add(spec.NotBefore), NotAfter: time.Now().Add(spec.NotAfter),
		BasicConstraintsValid: true, IsCA: spec.IsCA, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if spec.NoDigitalSignature {
		x.KeyUsage = x509.KeyUsageKeyEncipherment
	}
	l := &Leaf{Key: key}
	l.Cert, l.CertPEM = sign(t, x, i, key.Public(), nil)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	l.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for up := i; up.up != nil; up = up.up {
		l.Chain = append(l.Chain, up.Cert)
		l.ChainPEM = append(l.ChainPEM, up.PEM...)
	}
	return l
}

func serial(t testing.TB) *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1<<32))
}

// sign has x signed by the authority, or by its own key when there is none.
func sign(t testing.TB, x *x509.Certificate, by *Issuer, public any, own crypto.Signer) (*x509.Certificate, []byte) {
	t.Helper()
	parent, key := x, own
	if by != nil {
		parent, key = by.Cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

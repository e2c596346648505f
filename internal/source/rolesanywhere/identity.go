package rolesanywhere

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// identity is a certificate with what signs for it.
type identity struct {
	from     string // the place of the certificate, for messages
	keyFrom  string // the place of the key
	leaf     *x509.Certificate
	chain    []*x509.Certificate // intermediates that are sent, the leaf's issuer first
	unused   []*x509.Certificate // others that were at hand
	signer   signer
	files    []fileState // what it was read from
	warnings []warning
	now      time.Time // when it was judged, by AWS's clock where that is known
}

// warning is what does not keep a session from being made.
type warning struct{ text, help string }

// signer makes one signature.
type signer interface {
	// public is the public key, nil where only the device knows it.
	public() crypto.PublicKey
	// sign signs a SHA-256 digest: RSA PKCS #1 v1.5, or ECDSA in DER.
	sign(ctx context.Context, digest []byte) ([]byte, error)
}

// software is a private key in memory.
type software struct{ key crypto.Signer }

func (s software) public() crypto.PublicKey { return s.key.Public() }

func (s software) sign(_ context.Context, digest []byte) ([]byte, error) {
	b, err := s.key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil { // a key that is too short
		return nil, &settingsError{msg: "cannot sign with the private key of the certificate: " + printable(err.Error()), help: "get a certificate for a key of 2048 bits or more", err: err}
	}
	return b, nil
}

// name is a certificate in messages.
func name(c *x509.Certificate) string {
	if c.Subject.String() == "" {
		return "with serial number " + c.SerialNumber.Text(16)
	}
	return printable(c.Subject.String())
}

// chained is the leaf and what is sent with it.
func (id *identity) chained() []*x509.Certificate {
	return append([]*x509.Certificate{id.leaf}, id.chain...)
}

// refuse is a certificate that AWS would refuse, or that nothing could be
// signed for.
func (id *identity) refuse(why, help string) error {
	return &settingsError{msg: "cannot use the certificate " + name(id.leaf) + " of " + id.from + ": " + why, help: help}
}

func (id *identity) mismatch() error {
	help := "name the key that the certificate was made for; while the files are being replaced, the next attempt may find both"
	if id.keyFrom == id.from {
		return id.refuse("the private key beside it is another certificate's", help)
	}
	return id.refuse("the private key "+id.keyFrom+" is another certificate's", help)
}

// judge refuses what AWS would refuse
// (https://docs.aws.amazon.com/rolesanywhere/latest/userguide/trust-model.html#signature-verification),
// in the order in which a person would look.
func (id *identity) judge(now time.Time) error {
	id.now = now
	leaf := id.leaf
	if p := id.signer.public(); p != nil && !samePublic(p, leaf.PublicKey) {
		return id.mismatch()
	}
	switch leaf.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
	default:
		return id.refuse("its key is of the kind "+leaf.PublicKeyAlgorithm.String()+", and Roles Anywhere takes RSA and EC keys", "get a certificate for such a key")
	}
	switch {
	case leaf.Version != 3:
		return id.refuse(fmt.Sprintf("it is of X.509 version %d, and Roles Anywhere takes version 3", leaf.Version), "get one with extensions (basicConstraints, keyUsage)")
	case leaf.IsCA:
		return id.refuse("it is an authority's, and Roles Anywhere takes only certificates that are none", "name a certificate that the authority has issued")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return id.refuse("its key usage lacks digitalSignature", "get one with keyUsage = digitalSignature")
	case now.Before(leaf.NotBefore):
		return id.refuse("it is not valid before "+stamp(leaf.NotBefore)+", and now is "+stamp(now), "check this machine's clock, or wait")
	case now.After(leaf.NotAfter):
		return id.refuse("it ended at "+stamp(leaf.NotAfter)+", and now is "+stamp(now), "renew it: keyfob reads the new one by itself; if it should be valid, check this machine's clock")
	}
	for _, c := range id.chained() {
		if weak(c.SignatureAlgorithm) {
			what := "it"
			if c != leaf {
				what = "its intermediate " + name(c)
			}
			return id.refuse(what+" is signed by "+c.SignatureAlgorithm.String()+", and Roles Anywhere takes SHA-256 or better", "get one that is signed with SHA-256")
		}
	}
	return nil
}

// weak reports signatures over MD5 or SHA-1, and those of unknown kinds.
func weak(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
		return false
	}
	return true
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// arrange takes the leaf out of certs: the one that the key belongs to, else
// the first that is no authority's, else the first. The rest, with more,
// gives the chain. certs is not empty.
func (id *identity) arrange(certs, more []*x509.Certificate) {
	at := -1
	public := id.signer.public()
	for i, c := range certs {
		if public != nil && samePublic(public, c.PublicKey) && (at < 0 || c.NotAfter.After(certs[at].NotAfter)) {
			at = i
		}
	}
	for i := 0; at < 0 && i < len(certs); i++ {
		if !certs[i].IsCA {
			at = i
		}
	}
	at = max(at, 0)
	id.leaf = certs[at]
	if t, ok := id.signer.(*tokenSigner); ok {
		t.leaf = id.leaf.PublicKey
	}
	var rest []*x509.Certificate
	for i, c := range certs {
		if i != at {
			rest = append(rest, c)
		}
	}
	id.chain, id.unused = chain(id.leaf, append(rest, more...))
}

// chain orders what has issued leaf, and what has issued that, nearest
// first; unused is the rest. A root is not sent: AWS has it. Of several
// certificates of one issuer all are sent, because the trust anchor may stand
// above any of them, those that end last first.
func chain(leaf *x509.Certificate, pool []*x509.Certificate) (sent, unused []*x509.Certificate) {
	seen := map[string]bool{string(leaf.Raw): true}
	var left []*x509.Certificate
	for _, c := range pool {
		if !seen[string(c.Raw)] && !selfSigned(c) {
			left = append(left, c)
		}
		seen[string(c.Raw)] = true
	}
	level := []*x509.Certificate{leaf}
	for len(level) > 0 {
		var above, rest []*x509.Certificate
		for _, c := range left {
			issued := false
			for _, below := range level {
				issued = issued || mayHaveIssued(c, below)
			}
			if !issued {
				rest = append(rest, c)
				continue
			}
			i := len(above)
			for i > 0 && above[i-1].NotAfter.Before(c.NotAfter) {
				i--
			}
			above = append(above[:i], append([]*x509.Certificate{c}, above[i:]...)...)
		}
		sent = append(sent, above...)
		left, level = rest, above
	}
	if len(sent) > maxChain {
		sent, left = sent[:maxChain], append(left, sent[maxChain:]...)
	}
	return sent, left
}

// selfSigned reports a root. An authority may have certified another one of
// its own name, which is none.
func selfSigned(c *x509.Certificate) bool {
	if !bytes.Equal(c.RawIssuer, c.RawSubject) {
		return false
	}
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	var old x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &old)
}

// mayHaveIssued goes by names and key identifiers: signatures are AWS's to
// judge.
func mayHaveIssued(issuer, c *x509.Certificate) bool {
	if !bytes.Equal(issuer.RawSubject, c.RawIssuer) {
		return false
	}
	return len(issuer.SubjectKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(issuer.SubjectKeyId, c.AuthorityKeyId)
}

// legalRecord reports whether s can name a certificate in the vault.
func legalRecord(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.@-", c) >= 0) {
			return false
		}
	}
	return true
}

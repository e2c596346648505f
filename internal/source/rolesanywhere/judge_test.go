package rolesanywhere

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// TestBadCertificates: what AWS would refuse is refused before any call.
func TestBadCertificates(t *testing.T) {
	w := newWorld(t)
	key := newKey(t, false)
	k := w.file(t, "k.pem", keyPEM(t, key))
	bad := func(name string, x *x509.Certificate, parts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			c := w.root.issue(t, x, key)
			w.refused(t, append(parts, "cannot use the certificate CN="), "certificate", w.file(t, "c.pem", pemOf(c)), "private_key", k)
		})
	}
	bad("ended", &x509.Certificate{NotAfter: time.Now().Add(-time.Minute)}, "it ended at", "and now is", "renew it")
	bad("not yet valid", &x509.Certificate{NotBefore: time.Now().Add(time.Hour)}, "it is not valid before", "check this machine's clock")
	bad("an authority", &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}, "it is an authority's")
	bad("key usage", &x509.Certificate{KeyUsage: x509.KeyUsageKeyEncipherment}, "lacks digitalSignature")
	bad("control characters", &x509.Certificate{Subject: pkix.Name{CommonName: "machine\n\x1b[31mred"}, NotAfter: time.Now().Add(-time.Minute)}, "it ended at")
	old := &authority{key: newKey(t, true)}
	old.cert = old.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "old"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, old.key)
	sha1 := old.issue(t, &x509.Certificate{SignatureAlgorithm: x509.SHA1WithRSA}, key)
	w.refused(t, []string{"it is signed by SHA1-RSA", "SHA-256 or better"}, "certificate", w.file(t, "c.pem", pemOf(sha1)), "private_key", k)
	mid := &authority{key: newKey(t, false)}
	mid.cert = old.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "mid"}, SignatureAlgorithm: x509.SHA1WithRSA, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, mid.key)
	under := mid.issue(t, &x509.Certificate{}, key)
	w.refused(t, []string{"its intermediate CN=mid is signed by SHA1-RSA"}, "certificate", w.file(t, "c.pem", pemOf(under, mid.cert)), "private_key", k)

	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := w.root.issue(t, &x509.Certificate{}, edKey)
	w.refused(t, []string{"of the kind Ed25519", "RSA and EC keys"}, "certificate", w.file(t, "c.pem", pemOf(ed), keyPEM(t, edKey)))

	_, other := w.root.leaf(t, false)
	mine := w.root.issue(t, &x509.Certificate{}, key)
	o := w.file(t, "o.pem", keyPEM(t, other))
	w.refused(t, []string{"the private key " + o + " is another certificate's"}, "certificate", w.file(t, "c.pem", pemOf(mine)), "private_key", o)
	w.refused(t, []string{"the private key beside it is another certificate's"}, "certificate", w.file(t, "c.pem", pemOf(mine), keyPEM(t, other)))

	v1 := version1(t, w.root, key)
	w.refused(t, []string{"it is of X.509 version 1"}, "certificate", w.file(t, "c.pem", v1), "private_key", k)

	// On an end entity only, also where its authority stands before it.
	w.good(t, "certificate", w.file(t, "c.pem", pemOf(w.root.cert, mine)), "private_key", k)
}

// version1 makes a certificate without extensions, which the standard
// library does not.
func version1(t *testing.T, by *authority, key crypto.Signer) []byte {
	t.Helper()
	var tbs struct {
		Version    int `asn1:"explicit,tag:0,default:0,optional"`
		Serial     *big.Int
		Algorithm  asn1.RawValue
		Issuer     asn1.RawValue
		Validity   asn1.RawValue
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Extensions asn1.RawValue `asn1:"optional,explicit,tag:3"`
	}
	if _, err := asn1.Unmarshal(by.issue(t, &x509.Certificate{}, key).RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	tbs.Version, tbs.Extensions = 0, asn1.RawValue{}
	marshal := func(x any) []byte {
		b, err := asn1.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	body := marshal(tbs)
	sum := sha256.Sum256(body)
	signature, err := by.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	der := marshal(struct {
		Body      asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: body}, tbs.Algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestCurvesAndSizes: every curve signs, short RSA keys say so.
func TestCurvesAndSizes(t *testing.T) {
	w := newWorld(t)
	for _, c := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		w.good(t, "certificate", w.file(t, "c.pem", pemOf(w.root.issue(t, &x509.Certificate{}, key)), keyPEM(t, key)))
	}
	big, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	w.good(t, "certificate", w.file(t, "c.pem", pemOf(w.root.issue(t, &x509.Certificate{}, big)), keyPEM(t, big)))
}

func TestFilesThatCantBeUsed(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	cert, k := pemOf(leaf), keyPEM(t, key)
	no := func(name string, text []byte, parts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			path := w.file(t, "x.pem", text)
			w.refused(t, append(parts, path), "certificate", path)
		})
	}
	no("empty", nil, "it is empty")
	no("blank", []byte(" \n\n"), "it is empty")
	no("text", []byte("hello, this is no certificate"), "neither PEM nor DER nor PKCS #12")
	no("damaged", []byte(strings.Replace(string(cert), "\nM", "\n!M", 1)), "damaged PEM")
	no("cut", cert[:len(cert)-30], "damaged PEM")
	no("garbage in PEM", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "a certificate in it can't be read")
	no("no key", cert, "it holds no private key", settingKey)
	no("no certificate", k, "it holds no certificate")
	no("two keys", append(append(append([]byte{}, cert...), k...), keyPEM(t, newKey(t, false))...), "more than one private key")
	no("damaged key", append(append([]byte{}, cert...), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})...), "the private key in it can't be read")
	no("damaged TPM key", append(append([]byte{}, cert...), pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: []byte("x")})...), "the key of a TPM in it can't be read")
	no("request", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}), "it holds no certificate", "a request for a certificate")
	no("PKCS #7", pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: []byte("x")}), "openssl pkcs7")
	no("too long", make([]byte, maxFile+1), "longer than 1 MiB")
	ssh := w.file(t, "ssh.pem", pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("x")}))
	c := w.file(t, "c.pem", cert)
	w.refused(t, []string{"it holds no private key", "ssh-keygen"}, "certificate", c, "private_key", ssh)
	w.refused(t, []string{"cannot read roles_anywhere_private_key " + w.dir + "/none: no such file"}, "certificate", c, "private_key", w.dir+"/none")
	w.refused(t, []string{"not a regular file"}, "certificate", w.dir)
	w.refused(t, []string{"roles_anywhere_intermediates", "it holds no certificate"}, "certificate", c, "private_key", w.file(t, "k.pem", k), "intermediates", w.file(t, "i.pem", k))
	w.refused(t, []string{"cannot use roles_anywhere_certificate vault:none: the vault has no certificate of that name"}, "certificate", "vault:none")
	if !tokensBuilt {
		w.refused(t, []string{"was built without PKCS #11", "-tags pkcs11"}, "certificate", "pkcs11:token=x?pin-value="+strings.ReplaceAll(passphrase, " ", "%20"))
		w.refused(t, []string{"was built without PKCS #11"}, "certificate", c, "private_key", "pkcs11:token=x;object=y")
	}
	if runtime.GOOS != "windows" && os.Getuid() != 0 {
		if err := os.Chmod(c, 0); err != nil {
			t.Fatal(err)
		}
		w.refused(t, []string{"permission denied", "let keyfobd's user read the file"}, "certificate", c)
	}
}

func TestVault(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	both := cred.SecretBytes(append(pemOf(leaf), keyPEM(t, key)...))
	w.watch(both.AppendReveal(nil))
	if err := PutCertificate(t.Context(), w.store, "laptop", both, cred.Secret{}); err != nil {
		t.Fatal(err)
	}
	w.good(t, "certificate", "vault:laptop")
	w.good(t, "certificate", w.file(t, "c.pem", pemOf(leaf)), "private_key", "vault:laptop")
	got, err := GetCertificate(t.Context(), w.store, "laptop")
	if err != nil || !strings.Contains(got.Reveal(), "BEGIN PRIVATE KEY") {
		t.Errorf("%v", err)
	}
	put := func(name string, parts ...[]byte) error {
		var text []byte
		for _, p := range parts {
			text = append(text, p...)
		}
		return PutCertificate(t.Context(), w.store, name, cred.SecretBytes(text), cred.Secret{})
	}
	says(t, put("a/b", pemOf(leaf), keyPEM(t, key)), `cannot name a certificate "a/b"`)
	says(t, put("x", pemOf(leaf)), "it holds no private key")
	says(t, put("x", keyPEM(t, key)), "it holds no certificate")
	says(t, put("x", pemOf(leaf), keyPEM(t, newKey(t, false))), "belongs to none of its certificates")
	if len(w.store.records) != 1 {
		t.Errorf("%d records", len(w.store.records))
	}
}

// TestPassphraseRecord: one record for one place, however it is named.
func TestPassphraseRecord(t *testing.T) {
	a := PassphraseRecord("pkcs11:token=x;object=y?pin-value=1")
	if a != PassphraseRecord("pkcs11:token=x;object=y") || a == PassphraseRecord("pkcs11:token=x") || !strings.HasPrefix(a, "certificate-passphrase/") {
		t.Error(a)
	}
	if PassphraseRecord("/a?b") == PassphraseRecord("/a") || PassphraseRecord("vault:a") == PassphraseRecord("/vault:a") {
		t.Error("two places have one record")
	}
	if len(a) > 80 || filepath.Base(a) == "" {
		t.Error(a)
	}
}

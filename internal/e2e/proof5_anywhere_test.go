//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// anywhere is a person with a trust anchor, and a profile `any` whose
// certificate and key are the settings.
func anywhere(t *testing.T, pem []byte, settings string) *person {
	t.Helper()
	p := newPerson(t, "")
	p.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(pem)})
	p.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{})
	p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN, Trust: []fakeaws.Trust{{Principals: []string{"rolesanywhere.amazonaws.com"}}}})
	p.add("[profile any]\nregion = eu-west-1\nrole_arn = " + federatedARN + "\nroles_anywhere_trust_anchor_arn = " + fakeaws.DefaultTrustAnchorARN +
		"\nroles_anywhere_profile_arn = " + fakeaws.DefaultAnywhereProfileARN + "\n" + strings.ReplaceAll(settings, "HOME", p.home))
	return p
}

// p12 is a PKCS #12 file of a new certificate with its key and chain.
func p12(t *testing.T, by *fakeawstest.Issuer, spec fakeawstest.LeafSpec, password string) string {
	t.Helper()
	leaf := by.Leaf(t, spec)
	b, err := pkcs12.Modern.Encode(leaf.Key, leaf.Cert, leaf.Chain, password)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const filePassphrase = "CANARY-passphrase-of-a-file"

// TestRolesAnywherePKCS12: certificate, chain and key in a PKCS #12 file,
// whose passphrase is in the vault; replaced while the daemon runs, and over
// a restart.
func TestRolesAnywherePKCS12(t *testing.T) {
	t.Parallel()
	root := fakeawstest.NewIssuer(t)
	middle := root.Intermediate(t)
	p := anywhere(t, root.PEM, "roles_anywhere_certificate = HOME/host.p12\n")
	p.secrets.note("token", filePassphrase)
	file := p.path("host.p12")
	p.bad(p.do(nil, "credential-process", "--profile", "any"), 1, "host.p12")
	p.write("host.p12", p12(t, middle, fakeawstest.LeafSpec{RSA: true}, filePassphrase))
	p.bad(p.do(nil, "login", "any"), 1, file, "passphrase")
	p.good([]byte("CANARY-not-the-passphrase\n"), "certificate", "passphrase", file)
	p.bad(p.do(nil, "login", "any"), 1, file, "passphrase")
	if n := p.aws.Count("CreateSession"); n != 0 {
		t.Errorf("%d calls without a key", n)
	}
	p.good([]byte(filePassphrase+"\n"), "certificate", "passphrase", file)
	first := p.uses("any", "federated")
	if out := p.good(nil, "status").out; !strings.Contains(out, "certificate") {
		t.Errorf("status does not warn of a certificate with a day left: %s", out)
	}
	p.again()
	if d := p.uses("any", "federated"); d.AccessKeyId != first.AccessKeyId {
		t.Error("a new daemon asked AWS again")
	}
	// An EC key in the same place, of the same passphrase.
	p.write("host.p12", p12(t, middle, fakeawstest.LeafSpec{CommonName: "next.example.com"}, filePassphrase))
	p.good(nil, "login", "any", "--force")
	if d := p.uses("any", "federated"); d.AccessKeyId == first.AccessKeyId {
		t.Error("nothing was fetched anew")
	}
	p.write("host.p12", "CANARY, which is no PKCS #12 file")
	p.bad(p.do(nil, "login", "any", "--force"), 1, file)
}

// TestRolesAnywhereVault: `certificate add` of a PKCS #12 file and of an
// encrypted key; the files go, the vault signs. What can't sign is refused
// at the door.
func TestRolesAnywhereVault(t *testing.T) {
	t.Parallel()
	root := fakeawstest.NewIssuer(t)
	p := anywhere(t, root.PEM, "roles_anywhere_certificate = vault:host\n")
	p.secrets.note("token", filePassphrase)
	p.bad(p.do(nil, "credential-process", "--profile", "any"), 1, "vault:host", "the vault has no certificate of that name", "hint: ")
	p.write("host.p12", p12(t, root.Intermediate(t), fakeawstest.LeafSpec{}, filePassphrase))
	p.bad(p.do([]byte("CANARY-wrong\n"), "certificate", "add", "host", "--certificate", "host.p12"), 1)
	if r := p.good([]byte(filePassphrase+"\n"), "certificate", "add", "host", "--certificate", "host.p12"); !strings.HasPrefix(r.out, "added host: CN=machine.example.com, until ") {
		t.Errorf("%q", r.out)
	}
	if err := os.Remove(p.path("host.p12")); err != nil {
		t.Fatal(err)
	}
	p.uses("any", "federated")

	one, other := root.Leaf(t, fakeawstest.LeafSpec{}), root.Leaf(t, fakeawstest.LeafSpec{})
	p.write("one.pem", string(one.CertPEM))
	p.write("other.key", string(other.KeyPEM))
	p.bad(p.do(nil, "certificate", "add", "mixed", "--certificate", "one.pem", "--private-key", "other.key"), 1, "private key")
	p.bad(p.do(nil, "certificate", "add", "mixed", "--certificate", "none.pem"), 1, "none.pem")

	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("the rest needs openssl, which is not on the PATH")
	}
	p.write("one.key", string(one.KeyPEM))
	if out, err := p.command(openssl, "pkcs8", "-topk8", "-in", "one.key", "-out", "sealed.key", "-passout", "pass:"+filePassphrase[7:]).CombinedOutput(); err != nil {
		t.Skipf("openssl makes no encrypted key: %s", out)
	}
	p.good([]byte(filePassphrase[7:]+"\n"), "certificate", "add", "host", "--certificate", "one.pem", "--private-key", "sealed.key", "--force")
	p.again()
	p.good(nil, "login", "any", "--force")
	p.good(nil, "certificate", "remove", "host", "--yes")
	p.bad(p.do(nil, "login", "any", "--force"), 1, "the vault has no certificate of that name")
}

// softwareTPM starts one on a Unix socket; end ends it.
func softwareTPM(t *testing.T) (socket string, end func()) {
	t.Helper()
	swtpm, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("swtpm is not installed")
	}
	dir, err := os.MkdirTemp("", "tpm") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, swtpm, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	if err := c.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			cancel()
			_ = c.Wait()
		}
	}
	t.Cleanup(end)
	for range 300 {
		if _, err := os.Stat(socket); err == nil {
			return socket, end
		}
		time.Sleep(10 * time.Millisecond) // it says to nobody that it listens
	}
	t.Fatal("swtpm does not listen")
	return "", nil
}

// TestRolesAnywhereTPM: the key never leaves the TPM; without the TPM what
// there is lives on, and nothing new comes.
func TestRolesAnywhereTPM(t *testing.T) {
	t.Parallel()
	socket, end := softwareTPM(t)
	root, rootKey := machine(t, nil, nil, nil)
	p := anywhere(t, []byte(pemText(t, root)), "roles_anywhere_certificate = HOME/cert.pem\nroles_anywhere_private_key = HOME/tpm.pem\n")
	p.env["KEYFOB_TPM_DEVICE"] = socket
	cert, key := tpmMachine(t, socket, root, rootKey)
	p.write("cert.pem", cert)
	p.write("tpm.pem", key)
	first := p.uses("any", "federated")
	p.good(nil, "login", "any", "--force")
	p.again()
	if d := p.uses("any", "federated"); d.AccessKeyId == first.AccessKeyId {
		t.Error("nothing was fetched anew")
	}
	end()
	_ = os.Remove(socket)
	p.bad(p.do(nil, "login", "any", "--force"), 1, "TPM", socket)
	p.uses("any", "federated")

	// A key of another TPM.
	elsewhere, _ := softwareTPM(t)
	p.good(nil, "stop")
	p.env["KEYFOB_TPM_DEVICE"] = elsewhere
	p.bad(p.do(nil, "login", "any", "--force"), 1, "not of this TPM")
}

func tpmMachine(t *testing.T, socket string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (cert, key string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	k, err := keyfile.NewLoadableKey(transport.FromReadWriteCloser(conn), tpm2.TPMAlgECC, 256, nil)
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "tpm"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(0, 0, 90), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, public, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(k.Bytes())
}

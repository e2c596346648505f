//go:build unix

package rolesanywhere

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"keyfob/internal/cred"
)

// startTPM starts a software TPM on a Unix socket.
func startTPM(t *testing.T) string {
	t.Helper()
	swtpm := tool(t, "swtpm")
	dir, err := os.MkdirTemp("", "tpm") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, swtpm, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	var said strings.Builder
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = c.Wait() })
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("swtpm does not listen: %s", said.String())
	return ""
}

// onTPM opens the TPM for as long as a test needs it.
func onTPM(t *testing.T, socket string) transport.TPMCloser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	tpm, err := openTPM(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	return tpm
}

// tpmLeaf makes a key in the TPM and a certificate for it.
func (w *world) tpmLeaf(t *testing.T, tpm transport.TPMCloser, alg tpm2.TPMAlgID, bits int, opts ...keyfile.TPMKeyOption) (cert, key []byte) {
	t.Helper()
	k, err := keyfile.NewLoadableKey(tpm, alg, bits, nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return pemOf(w.root.certify(t, &x509.Certificate{}, public)), k.Bytes()
}

func TestTPM(t *testing.T) {
	socket := startTPM(t)
	w := newWorld(t)
	w.deps.TPM = socket
	tpm := onTPM(t, socket)
	for _, x := range []struct {
		alg  tpm2.TPMAlgID
		bits int
	}{{tpm2.TPMAlgECC, 256}, {tpm2.TPMAlgECC, 384}, {tpm2.TPMAlgRSA, 2048}} {
		cert, key := w.tpmLeaf(t, tpm, x.alg, x.bits)
		c, k := w.file(t, "c.pem", cert), w.file(t, "k.pem", key)
		s := w.source(t, "certificate", c, "private_key", k)
		for range 5 { // more often than a TPM has room for what is left behind
			if _, err := w.fetch(t, s); err != nil {
				t.Fatal(err)
			}
		}
		w.good(t, "certificate", w.file(t, "both.pem", cert, key))
		if err := os.Chmod(k, 0o644); err != nil { // the file alone is worth nothing
			t.Fatal(err)
		}
		w.good(t, "certificate", c, "private_key", k)
		if strings.Contains(w.logged(), "level=warning") {
			t.Error(w.logged())
		}
		if err := PutCertificate(t.Context(), w.store, "tpm", cred.SecretBytes(append(cert, key...)), cred.Secret{}); err != nil {
			t.Fatal(err)
		}
		w.good(t, "certificate", "vault:tpm")
	}

	// A key that is not the certificate's is found out without the TPM.
	cert, _ := w.tpmLeaf(t, tpm, tpm2.TPMAlgECC, 256)
	_, key := w.tpmLeaf(t, tpm, tpm2.TPMAlgECC, 256)
	w.deps.TPM = w.dir + "/none"
	w.refused(t, []string{"is another certificate's"}, "certificate", w.file(t, "x.pem", cert, key))
	w.deps.TPM = socket

	// Below a persistent parent.
	session := keyfile.NewTPMSession(tpm)
	srk, _, err := keyfile.CreateSRK(session, tpm2.TPMRHOwner, nil)
	if err != nil {
		t.Fatal(err)
	}
	const parent = tpm2.TPMHandle(0x81000001)
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: srk.Handle, Name: srk.Name}, PersistentHandle: parent}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	keyfile.FlushHandle(tpm, srk)
	cert, key = w.tpmLeaf(t, tpm, tpm2.TPMAlgECC, 256, keyfile.WithParent(parent))
	w.good(t, "certificate", w.file(t, "p.pem", cert, key))

	// A key of another TPM.
	elsewhere := startTPM(t)
	cert, key = w.tpmLeaf(t, onTPM(t, elsewhere), tpm2.TPMAlgECC, 256)
	w.refused(t, []string{"the key is not of this TPM"}, "certificate", w.file(t, "e.pem", cert, key))
}

// TestTPMPassword: the password comes from the vault, and a wrong one is
// tried once alone.
func TestTPMPassword(t *testing.T) {
	socket := startTPM(t)
	w := newWorld(t)
	w.deps.TPM = socket
	cert, key := w.tpmLeaf(t, onTPM(t, socket), tpm2.TPMAlgECC, 256, keyfile.WithUserAuth([]byte(passphrase)))
	c, k := w.file(t, "c.pem", cert), w.file(t, "k.pem", key)
	w.refused(t, []string{"the key has a password in the TPM, and the vault has none"}, "certificate", c, "private_key", k)
	put := func(p string) {
		t.Helper()
		if err := PutPassphrase(t.Context(), w.store, k, cred.NewSecret(p)); err != nil {
			t.Fatal(err)
		}
	}
	put("CANARY-wrong")
	w.canaries = append(w.canaries, "CANARY-wrong")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, err := w.source(t, "certificate", c, "private_key", k).Fetch(t.Context(), cred.Input{})
			says(t, err, "the TPM does not take the password of the vault")
		})
	}
	wg.Wait()
	w.refused(t, []string{"the TPM does not take the password of the vault", "not tried again until it changes"}, "certificate", c, "private_key", k)
	if n := failures(t, onTPM(t, socket)); n != 1 {
		t.Errorf("the TPM counts %d wrong passwords", n)
	}
	put(passphrase)
	w.good(t, "certificate", c, "private_key", k)
}

// failures is how many wrong passwords the TPM has counted.
func failures(t *testing.T, tpm transport.TPM) uint32 {
	t.Helper()
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.CapabilityData.Data.TPMProperties()
	if err != nil || len(p.TPMProperty) != 1 {
		t.Fatal(err)
	}
	return p.TPMProperty[0].Value
}

// TestNoTPM needs none.
func TestNoTPM(t *testing.T) {
	w := newWorld(t)
	public := &x509.Certificate{}
	// A key file of a TPM that is not here: made once with a software TPM.
	block, _ := pem.Decode([]byte(strangeKey))
	k, err := readTPMKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	both := w.file(t, "t.pem", pemOf(w.root.certify(t, public, k.pub)), []byte(strangeKey))
	device := func(path string, parts ...string) {
		t.Helper()
		w.deps.TPM = path
		_, err := w.fetch(t, w.source(t, "certificate", both))
		if !errors.Is(err, cred.ErrUnavailable) {
			t.Errorf("%T %v", err, err)
		}
		says(t, err, parts...)
	}
	device(w.dir+"/none", "cannot use the TPM "+w.dir+"/none: there is none")
	device(both, "TPM file is not a device")
	l, err := net.Listen("unix", w.dir+"/s")
	if err != nil {
		t.Skipf("a Unix socket: %v", err)
	}
	defer l.Close() //nolint:errcheck // ends with the test
	// A TPM that does not answer holds nobody up for longer than the fetch.
	s := w.source(t, "certificate", both)
	s.d.TPM = w.dir + "/s"
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = s.Fetch(ctx, cred.Input{})
	if !errors.Is(err, cred.ErrUnavailable) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	says(t, err, "did not answer in time")
	// Nonsense for an answer.
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			_, _ = c.Read(b)
			_, _ = c.Write([]byte("x"))
			_ = c.Close()
		}
	}()
	device(w.dir+"/s", "on the TPM "+w.dir+"/s: ")
}

// strangeKey is an EC key that a software TPM has made for this test; that
// TPM is gone.
const strangeKey = `-----BEGIN TSS2 PRIVATE KEY-----
MIHwBgZngQUKAQOgAwEB/wIEQAAAAQRYAFYAIwALAAYAcgAAABAAEAADABAAINOA
YH4FWvIT7ajmPM/ciuX7azLTy20ZFyYdIHFdIwpPACDU5hiIrtgIIoZVQ5Cz3Mgu
Sns2ZcAzuW/vXCdtpP+HkQSBgAB+ACCwzEfWUqFAJ7Kbw24REGXsy4lmQUwtlxc6
E/JZ6Rpr9AAQrxQbfnjF+vPHHiAeWEDXlUP9zvpXpRZWbv0ynAwDmwS6P777RRPt
H9Cj+neIp0kFj4gAyhA+M4zJu/vUpWv1frh4IZSYbiWVus4qTE/tNqXlLWMt0LFg
xeqe
-----END TSS2 PRIVATE KEY-----
`

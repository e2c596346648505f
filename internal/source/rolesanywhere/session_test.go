package rolesanywhere

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

func TestSession(t *testing.T) {
	for _, isRSA := range []bool{false, true} {
		t.Run(fmt.Sprintf("RSA=%v", isRSA), func(t *testing.T) {
			w := newWorld(t)
			leaf, key := w.root.leaf(t, isRSA)
			var skew []time.Duration
			w.deps.Skew = func(d time.Duration) { skew = append(skew, d) }
			c := w.good(t, "certificate", w.file(t, "both.pem", pemOf(leaf), keyPEM(t, key)), "duration_seconds", "7200")
			if left := time.Until(c.Expires); left < 7190*time.Second || left > 7210*time.Second {
				t.Errorf("%v", left)
			}
			calls := w.aws.Calls("CreateSession")
			if len(calls) != 1 || calls[0].Region != "eu-west-1" {
				t.Fatalf("%+v", calls)
			}
			if len(skew) != 1 || skew[0] != 0 {
				t.Errorf("%v", skew)
			}
			if !strings.Contains(w.logged(), "subject=\"arn:aws:rolesanywhere:eu-west-1:111122223333:subject/") {
				t.Errorf("no subject in %s", w.logged())
			}
		})
	}
}

// TestFakesIssuer uses the fake's own certificates.
func TestFakesIssuer(t *testing.T) {
	w := newWorld(t)
	root := fakeawstest.NewIssuer(t)
	w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root.PEM)})
	for _, isRSA := range []bool{false, true} {
		l := root.Intermediate(t).Intermediate(t).Leaf(t, fakeawstest.LeafSpec{RSA: isRSA})
		w.good(t, "certificate", w.file(t, "c.pem", l.CertPEM), "private_key", w.file(t, "k.pem", l.KeyPEM), "intermediates", w.file(t, "i.pem", l.ChainPEM))
	}
}

// TestChains: intermediates in any order and place, with the root and
// others' among them, arrive as AWS can follow them.
func TestChains(t *testing.T) {
	w := newWorld(t)
	up := w.root
	var path []*x509.Certificate // the root's neighbour first
	for i := range 5 {
		up = newAuthority(t, up, fmt.Sprintf("level %d", i))
		path = append(path, up.cert)
	}
	leaf, key := up.leaf(t, false)
	near := slices.Clone(path)
	slices.Reverse(near)
	stranger, _ := newAuthority(t, nil, "stranger").leaf(t, false)
	elsewhere := newAuthority(t, newAuthority(t, nil, "elsewhere"), "elsewhere 2").cert
	separate := w.file(t, "key.pem", keyPEM(t, key))

	w.good(t, "certificate", w.file(t, "a.pem", pemOf(leaf), pemOf(near...), keyPEM(t, key)))
	w.good(t, "certificate", w.file(t, "b.pem", keyPEM(t, key), pemOf(path...), pemOf(leaf)))
	w.good(t, "certificate", w.file(t, "c.pem", pemOf(leaf)), "private_key", separate,
		"intermediates", w.file(t, "i.pem", pemOf(w.root.cert, elsewhere), pemOf(path...), pemOf(stranger, near[0])))
	w.good(t, "certificate", w.file(t, "d.pem", pemOf(leaf, near[0], near[1])), "private_key", separate, "intermediates", w.file(t, "j.pem", pemOf(near...)))
	// CRLF, a BOM and words around the parts
	text := "\ufeffBag Attributes\r\n  friendlyName: x\r\n" + strings.ReplaceAll(string(pemOf(leaf))+string(pemOf(near...)), "\n", "\r\n")
	w.good(t, "certificate", w.file(t, "e.pem", []byte(text)), "private_key", separate)
	if n := w.aws.Count("CreateSession"); n != 5 {
		t.Errorf("%d calls", n)
	}
	sent, unused := chain(leaf, slices.Concat(path, []*x509.Certificate{w.root.cert, elsewhere, leaf}))
	if !slices.Equal(sent, near) || !slices.Equal(unused, []*x509.Certificate{elsewhere}) {
		t.Errorf("%d sent, %d unused", len(sent), len(unused))
	}
	// A sixth one is left out: more than five are refused.
	under := newAuthority(t, up, "level 6")
	last, _ := under.leaf(t, false)
	sent, unused = chain(last, append(slices.Clone(path), under.cert))
	if len(sent) != 5 || sent[0] != under.cert || len(unused) != 1 || unused[0] != path[0] {
		t.Errorf("%d sent, %d unused", len(sent), len(unused))
	}
}

// TestCrossSigned: where two authorities have certified one issuer, both
// ways are sent.
func TestCrossSigned(t *testing.T) {
	w := newWorld(t)
	other := newAuthority(t, nil, "other root")
	mid := newAuthority(t, w.root, "mid")
	crossed := other.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "mid"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}, mid.key)
	leaf, key := mid.leaf(t, false)
	k := w.file(t, "k.pem", keyPEM(t, key))
	w.good(t, "certificate", w.file(t, "c.pem", pemOf(leaf, crossed, mid.cert)), "private_key", k)
	w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(pemOf(other.cert))})
	w.good(t, "certificate", w.file(t, "c.pem", pemOf(leaf, mid.cert, crossed)), "private_key", k)
}

func TestSessionName(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	file := w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key))
	_, err := w.fetch(t, w.source(t, "certificate", file, "role_session_name", "web-1"))
	says(t, err, "does not let the request name its session", "acceptRoleSessionName", "role_session_name")
	w.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{AcceptRoleSessionName: true})
	w.good(t, "certificate", file, "role_session_name", "web-1")
	if !strings.Contains(w.logged(), "assumed-role/machine/web-1") {
		t.Error(w.logged())
	}
}

// TestReplaced: a certificate that is renewed while the source lives counts
// from the next fetch on, and at once for status.
func TestReplaced(t *testing.T) {
	w := newWorld(t)
	issue := func(days int) ([]byte, []byte, time.Time) {
		key := newKey(t, false)
		c := w.root.issue(t, &x509.Certificate{NotAfter: time.Now().AddDate(0, 0, days)}, key)
		return pemOf(c), keyPEM(t, key), c.NotAfter
	}
	c1, k1, end1 := issue(30)
	cert, key := w.file(t, "c.pem", c1), w.file(t, "k.pem", k1)
	s := w.source(t, "certificate", cert, "private_key", key)
	if at, ok := s.CertificateExpires(t.Context()); !ok || !at.Equal(end1) {
		t.Errorf("before the first fetch: %v %v", at, ok)
	}
	if _, err := w.fetch(t, s); err != nil {
		t.Fatal(err)
	}
	c2, k2, end2 := issue(60)
	w.file(t, "c.pem", c2)
	calls := w.aws.Count("CreateSession")
	_, err := w.fetch(t, s)
	says(t, err, "is another certificate's", "the next attempt may find both")
	if w.aws.Count("CreateSession") != calls {
		t.Error("called with a key that does not fit")
	}
	w.file(t, "k.pem", k2)
	if at, ok := s.CertificateExpires(t.Context()); !ok || !at.Equal(end2) {
		t.Errorf("after the change: %v %v", at, ok)
	}
	if _, err := w.fetch(t, s); err != nil {
		t.Fatal(err)
	}
	// Written in place, with the same size.
	c3, k3, end3 := issue(90)
	for path, text := range map[string][]byte{cert: c3, key: k3} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if at, ok := s.CertificateExpires(t.Context()); !ok || !at.Equal(end3) {
		t.Errorf("after the second change: %v %v", at, ok)
	}
	if _, err := w.fetch(t, s); err != nil {
		t.Fatal(err)
	}
	// Gone: what is known stays known.
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if at, ok := s.CertificateExpires(t.Context()); !ok || !at.Equal(end3) {
		t.Errorf("after the end: %v %v", at, ok)
	}
	_, err = w.fetch(t, s)
	says(t, err, "cannot read roles_anywhere_certificate "+cert, "no such file")
}

// TestReplacedUnderWay: however the files are replaced while sources read
// them, nobody signs with a key that does not fit, and nobody reads half.
func TestReplacedUnderWay(t *testing.T) {
	w := newWorld(t)
	var pairs [2][2][]byte
	for i := range pairs {
		c, k := w.root.leaf(t, false)
		pairs[i] = [2][]byte{pemOf(c), keyPEM(t, k)}
	}
	w.file(t, "c.pem", pairs[0][0])
	w.file(t, "k.pem", pairs[0][1])
	s := w.source(t, "certificate", w.dir+"/c.pem", "private_key", w.dir+"/k.pem")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for j, name := range []string{"c.pem", "k.pem"} {
				_ = os.WriteFile(w.dir+"/next", pairs[i%2][j], 0o600)
				_ = os.Rename(w.dir+"/next", w.dir+"/"+name)
			}
		}
	})
	fine := 0
	for range 300 {
		_, err := s.identity(t.Context())
		if err == nil {
			fine++
		}
	}
	for range 30 {
		if _, err := w.fetch(t, s); err != nil && !strings.Contains(err.Error(), "is another certificate's") {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if fine != 300 {
		t.Errorf("%d of 300 could be read", fine)
	}
}

// TestReplacedBetween: the certificate is replaced after it was read and
// before its key is.
func TestReplacedBetween(t *testing.T) {
	w := newWorld(t)
	old, _ := w.root.leaf(t, false)
	next, key := w.root.leaf(t, false)
	cert := w.file(t, "c.pem", pemOf(old))
	if err := w.store.Put(t.Context(), CertificateRecord("k"), cred.SecretBytes(keyPEM(t, key))); err != nil {
		t.Fatal(err)
	}
	w.store.got = func() { w.file(t, "c.pem", pemOf(next)) }
	s := w.source(t, "certificate", cert, "private_key", "vault:k")
	if _, err := w.fetch(t, s); err != nil {
		t.Fatal(err)
	}
	// Records are looked at anew, for status too.
	if err := PutCertificate(t.Context(), w.store, "k", cred.SecretBytes(append(pemOf(next), keyPEM(t, key)...)), cred.Secret{}); err != nil {
		t.Fatal(err)
	}
	both := w.source(t, "certificate", "vault:k", "intermediates", w.file(t, "i.pem", pemOf(w.root.cert)))
	if at, ok := both.CertificateExpires(t.Context()); !ok || !at.Equal(next.NotAfter) {
		t.Errorf("%v %v", at, ok)
	}
	later := w.root.issue(t, &x509.Certificate{NotAfter: time.Now().AddDate(1, 0, 0)}, key)
	if err := PutCertificate(t.Context(), w.store, "k", cred.SecretBytes(append(pemOf(later), keyPEM(t, key)...)), cred.Secret{}); err != nil {
		t.Fatal(err)
	}
	if at, ok := both.CertificateExpires(t.Context()); !ok || !at.Equal(later.NotAfter) {
		t.Errorf("%v %v", at, ok)
	}
}

func TestWarnings(t *testing.T) {
	w := newWorld(t)
	key := newKey(t, false)
	c := w.root.issue(t, &x509.Certificate{NotAfter: time.Now().Add(13*24*time.Hour + time.Minute)}, key)
	path := w.file(t, "c.pem", pemOf(c), keyPEM(t, key))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	s := w.source(t, "certificate", path)
	for range 3 {
		if _, err := w.fetch(t, s); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"the certificate CN=machine ends in 13 days", "can be read by other users (mode 0644)", "chmod 600 " + path} {
		if n := strings.Count(w.logged(), text); n != 1 {
			t.Errorf("%q stands there %d times: %s", text, n, w.logged())
		}
	}
	fine := newWorld(t)
	c = fine.root.issue(t, &x509.Certificate{NotAfter: time.Now().Add(15 * 24 * time.Hour)}, key)
	fine.good(t, "certificate", fine.file(t, "c.pem", pemOf(c), keyPEM(t, key)))
	if strings.Contains(fine.logged(), "level=warning") {
		t.Error(fine.logged())
	}
	if days(36*time.Hour) != "36 hours" || days(90*time.Minute) != "90 minutes" {
		t.Error(days(36*time.Hour), days(90*time.Minute))
	}
}

// TestClock: a clock that is off is told and corrected from the second
// attempt on.
func TestClock(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	s := w.source(t, "certificate", w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key)))
	w.aws.SetClock(20 * time.Minute)
	_, err := w.fetch(t, s)
	var e *cred.UpstreamError
	if !errors.As(err, &e) || e.Refused || e.Skew < 19*time.Minute {
		t.Fatalf("%#v", err)
	}
	says(t, err, "behind AWS's", "keyfob signs with AWS's time")
	if _, err := w.fetch(t, s); err != nil {
		t.Fatal(err)
	}
	// By AWS's clock the certificate may have ended already.
	w.aws.SetClock(200 * 24 * time.Hour)
	_, _ = w.fetch(t, s)
	calls := w.aws.Count("CreateSession")
	_, err = w.fetch(t, s)
	says(t, err, "it ended at", "check this machine's clock")
	if w.aws.Count("CreateSession") != calls {
		t.Error("called")
	}
}

func TestLockedVault(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	if err := PutCertificate(t.Context(), w.store, "m", cred.SecretBytes(append(pemOf(leaf), keyPEM(t, key)...)), cred.Secret{}); err != nil {
		t.Fatal(err)
	}
	s := w.source(t, "certificate", "vault:m")
	w.store.locked = true
	if _, err := w.fetch(t, s); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("%v", err)
	}
	if _, ok := s.CertificateExpires(t.Context()); ok {
		t.Error("known while the vault is locked")
	}
	w.store.locked = false
	if _, err := w.fetch(t, s); err != nil {
		t.Fatal(err)
	}
	w.store.locked = true
	if at, ok := s.CertificateExpires(t.Context()); !ok || !at.Equal(leaf.NotAfter) {
		t.Errorf("%v %v", at, ok)
	}
}

// TestAtOnce: sources share files, pool and devices.
func TestAtOnce(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	path := w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key))
	s := w.source(t, "certificate", path)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Fetch(t.Context(), cred.Input{}); err != nil {
				t.Error(err)
			}
			s.CertificateExpires(t.Context())
		})
	}
	wg.Wait()
	if s.Interactive() || s.Upstream() != w.url {
		t.Error(s.Upstream())
	}
	if err := s.Reach(context.Background()); err != nil {
		t.Error(err)
	}
}

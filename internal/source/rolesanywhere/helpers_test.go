package rolesanywhere

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/profiles"
)

const role = "arn:aws:iam::111122223333:role/machine"

// passphrase is a canary: no message may show it.
const passphrase = "CANARY-pass/7 phrase"

// world is a fake AWS with a trust anchor, and what sources need to call it.
type world struct {
	aws      *fakeaws.Server
	url      string
	root     *authority
	dir      string
	store    *store
	deps     Deps
	canaries []string

	mu   sync.Mutex // guards logs
	logs bytes.Buffer
}

func (w *world) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs.Write(b)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs.String()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{root: newAuthority(t, nil, "root"), dir: t.TempDir(), store: &store{records: map[string]cred.Secret{}}, canaries: []string{passphrase}}
	w.aws, w.url = fakeawstest.Start(t)
	w.aws.AddRole(fakeaws.RoleSpec{ARN: role, MaxSessionDuration: 43200, Trust: []fakeaws.Trust{{Principals: []string{"rolesanywhere.amazonaws.com"}}}})
	w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(pemOf(w.root.cert))})
	w.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{DurationSeconds: 43200})
	log := logrus.New()
	log.SetOutput(w)
	log.SetLevel(logrus.TraceLevel)
	p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})
	t.Cleanup(p.CloseIdle)
	devices := NewDevices()
	w.deps = Deps{Store: w.store, Pool: p, Log: logrus.NewEntry(log), Devices: devices}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		devices.Wait(ctx)
	})
	return w
}

// link makes a link of kv pairs, "certificate" for
// "roles_anywhere_certificate".
func (w *world) link(kv ...string) profiles.Link {
	l := profiles.Link{Kind: profiles.KindRolesAnywhere, Profile: "dev", RoleARN: role,
		Client: profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"rolesanywhere": w.url, "": "http://127.0.0.1:1"}},
		Params: map[string]string{"role_arn": role, settingAnchor: fakeaws.DefaultTrustAnchorARN, settingProfile: fakeaws.DefaultAnywhereProfileARN}}
	for i := 0; i < len(kv); i += 2 {
		name := kv[i]
		switch name {
		case "certificate", "private_key", "intermediates":
			name = "roles_anywhere_" + name
		}
		l.Params[name] = kv[i+1]
	}
	return l
}

func (w *world) source(t testing.TB, kv ...string) *source {
	t.Helper()
	s, err := New(w.link(kv...), w.deps)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*source)
}

func (w *world) fetch(t testing.TB, s *source) (cred.Credentials, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := s.Fetch(ctx, cred.Input{Profile: "dev"})
	w.noSecrets(t, err, c)
	return c, err
}

// good fetches and looks at the session.
func (w *world) good(t testing.TB, kv ...string) cred.Credentials {
	t.Helper()
	c, err := w.fetch(t, w.source(t, kv...))
	if err != nil {
		t.Fatalf("%v (hint: %s)", err, cred.HintOf(err))
	}
	if !c.Temporary() || c.AccountID != "111122223333" || c.RoleARN != role || c.Expires.Before(time.Now()) {
		t.Errorf("%+v", c)
	}
	return c
}

// refused fetches, and expects a refusal before any call, with these parts
// in its words.
func (w *world) refused(t testing.TB, parts []string, kv ...string) {
	t.Helper()
	before := w.aws.Count("CreateSession")
	_, err := w.fetch(t, w.source(t, kv...))
	var e *settingsError
	if !errors.As(err, &e) || !errors.Is(err, cred.ErrConfig) {
		t.Errorf("%T %v", err, err)
		return
	}
	says(t, err, parts...)
	if n := w.aws.Count("CreateSession") - before; n != 0 {
		t.Errorf("%d calls", n)
	}
}

// says looks at the form of a message and for parts of it.
func says(t testing.TB, err error, parts ...string) {
	t.Helper()
	m := err.Error()
	if !strings.HasPrefix(m, "cannot ") || strings.ContainsAny(m, "\r\n") || strings.HasSuffix(m, ".") {
		t.Errorf("message %q is not a line of ours", m)
	}
	for _, p := range parts {
		if !strings.Contains(m+"\n"+cred.HintOf(err), p) {
			t.Errorf("%q is missing in %q, hint %q", p, m, cred.HintOf(err))
		}
	}
}

// noSecrets looks at everything that people may see.
func (w *world) noSecrets(t testing.TB, err error, all ...cred.Credentials) {
	t.Helper()
	seen := w.logged()
	for ; err != nil; err = errors.Unwrap(err) {
		seen += err.Error() + cred.HintOf(err)
	}
	secrets := slices.Clone(w.canaries)
	for _, c := range all {
		secrets = append(secrets, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
	}
	for _, s := range secrets {
		if s != "" && strings.Contains(seen, s) {
			t.Errorf("a secret is shown in %q", seen)
		}
	}
}

// file writes a file that only its owner may read.
func (w *world) file(t testing.TB, name string, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	text := bytes.Join(parts, nil)
	// as tools that renew certificates do
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	w.watch(text)
	return path
}

// watch makes canaries of the private keys in a text.
func (w *world) watch(text []byte) {
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return
		}
		if strings.Contains(b.Type, "PRIVATE KEY") {
			s := base64.StdEncoding.EncodeToString(b.Bytes)
			for ; len(s) >= 24; s = s[24:] {
				w.canaries = append(w.canaries, s[:24])
			}
		}
	}
}

// authority issues certificates of every kind.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t testing.TB, up *authority, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t, false)}
	x := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().AddDate(5, 0, 0)}
	if up == nil {
		up = a
	}
	a.cert = up.issue(t, x, a.key)
	return a
}

func newKey(t testing.TB, isRSA bool) crypto.Signer {
	t.Helper()
	if isRSA {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue signs x for key, with what x leaves out as AWS wants it.
func (a *authority) issue(t testing.TB, x *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	return a.certify(t, x, key.Public())
}

func (a *authority) certify(t testing.TB, x *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	x.SerialNumber = n.Add(n, big.NewInt(1<<40))
	if x.Subject.CommonName == "" {
		x.Subject.CommonName = "machine"
	}
	if x.NotBefore.IsZero() {
		x.NotBefore = time.Now().Add(-time.Hour)
	}
	if x.NotAfter.IsZero() {
		x.NotAfter = time.Now().AddDate(0, 0, 90)
	}
	if x.KeyUsage == 0 {
		x.KeyUsage = x509.KeyUsageDigitalSignature
	}
	if x.ExtraExtensions == nil {
		x.BasicConstraintsValid = true
	}
	parent := a.cert
	if parent == nil {
		parent = x
	}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaf is a good certificate with its key.
func (a *authority) leaf(t testing.TB, isRSA bool) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key := newKey(t, isRSA)
	return a.issue(t, &x509.Certificate{}, key), key
}

func pemOf(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes()
}

func keyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// store is the vault.
type store struct {
	mu      sync.Mutex // guards what follows
	records map[string]cred.Secret
	locked  bool
	got     func() // called once, when a record is read
}

func (s *store) Get(_ context.Context, name string) (cred.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.records[name]
	if s.got != nil {
		got := s.got
		s.got = nil
		got()
	}
	switch {
	case s.locked:
		return cred.Secret{}, cred.ErrLocked
	case !ok:
		return cred.Secret{}, cred.ErrNotFound
	}
	return v, nil
}

func (s *store) Put(_ context.Context, name string, v cred.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return cred.ErrLocked
	}
	s.records[name] = v
	return nil
}

func (s *store) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, name)
	return nil
}

func (s *store) List(context.Context, string) ([]string, error) { return nil, nil }

// tool finds a program, or skips the test by its name.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// run runs a program that must succeed.
func run(t testing.TB, input []byte, argv ...string) []byte {
	t.Helper()
	out, err := try(t, input, argv...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return out
}

func try(t testing.TB, input []byte, argv ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stdin = bytes.NewReader(input)
	var out, bad bytes.Buffer
	c.Stdout, c.Stderr = &out, &bad
	if err := c.Run(); err != nil {
		return bad.Bytes(), err
	}
	return out.Bytes(), nil
}

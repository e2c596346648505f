//go:build !windows

package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"keyfob/internal/control"
)

// secureToml is a container endpoint that speaks TLS by the files of w.pair.
func secureToml(listen string) string {
	return "[[endpoint]]\nkind = 'container'\nlisten = '" + listen + "'\ntls_cert = 'tls/cert.pem'\ntls_key = 'tls/key.pem'\n"
}

// pair makes a certificate where secureToml looks for it, and returns what its
// clients trust.
func (w *world) pair(life time.Duration, names ...string) *x509.CertPool {
	w.t.Helper()
	p, err := newPair(names, life)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("config/keyfob/tls/key.pem", string(p.key))
	w.write("config/keyfob/tls/cert.pem", string(p.certificate))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.authority)
	return roots
}

// dialTLS connects by the name that the certificate must have.
func (w *world) dialTLS(address, name string, roots *x509.CertPool) (*kept, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	k := newKept(w.t, conn)
	k.host = name
	return k, nil
}

// TestTLSEndpoint: a grant of a TLS endpoint has an https URL by a name of the
// certificate, which serves; exec keeps to plain http; a certificate that is
// renewed is shown within a moment, and the open connection serves on; a bad
// one changes nothing, and status says why.
func TestTLSEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := freePort(t)
	_, port, _ := net.SplitHostPort(a)
	roots := w.pair(100*24*time.Hour, "keyfob.internal", "other.internal")
	w.config(secureToml(a))
	w.start()
	var g, exec control.GrantResult
	w.must(control.MethodGrantAdd, control.GrantParams{Context: w.context("app"), Profiles: []string{"app"}}, &g)
	if want := "https://keyfob.internal:" + port + "/v1/credentials/app"; g.URL != want {
		t.Errorf("the grant is for %s, want %s", g.URL, want)
	}
	w.must(control.MethodGrantAdd, control.GrantParams{Context: w.context("app"), Profiles: []string{"app"}, ForExec: true}, &exec)
	if !strings.HasPrefix(exec.URL, "http://127.0.0.1:") || strings.HasPrefix(exec.URL, "http://"+a) {
		t.Errorf("exec is given %s", exec.URL)
	}
	var list control.GrantListResult
	w.must(control.MethodGrantList, nil, &list)
	for _, l := range list.Grants {
		if l.URL != g.URL && l.URL != exec.URL {
			t.Errorf("the list has %s", l.URL)
		}
	}
	token, err := os.ReadFile(g.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	open, err := w.dialTLS(a, "keyfob.internal", roots)
	if err != nil {
		t.Fatal(err)
	}
	serves := func(when string) {
		t.Helper()
		if code, body, err := open.do("GET", "/v1/credentials/app", "Authorization: "+string(token)); err != nil || code != 200 || !strings.Contains(body, "ASIAAPP") {
			t.Errorf("%s: %d, %v", when, code, err)
		}
	}
	serves("at first")
	var checks control.DoctorResult
	w.must(control.MethodDoctor, control.DoctorParams{Context: w.context("app"), Offline: true}, &checks)
	found := false
	for _, k := range checks.Checks {
		found = found || k.ID == "endpoint.container" && k.About == a && k.State == control.CheckOK
	}
	if !found {
		t.Errorf("doctor does not find the endpoint well: %+v", checks.Checks)
	}

	// A new pair, one file after the other: the step between is seen, and is
	// none. The old certificate is shown until both are there.
	p, err := newPair([]string{"keyfob.internal"}, 10*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w.write("config/keyfob/tls/cert.pem", string(p.certificate))
	w.eventually("status tells of the mismatch", func() bool { return strings.Contains(w.status().ReloadError, "not that of the certificate") })
	if text := w.status().ReloadError; !strings.Contains(text, "config.toml:4") || !strings.Contains(w.log.String(), "not that of the certificate") {
		t.Errorf("status says %q", text)
	}
	if _, err := w.dialTLS(a, "keyfob.internal", roots); err != nil {
		t.Errorf("the old certificate, while the new one does not fit: %v", err)
	}
	if len(w.status().Warnings) > 0 {
		t.Errorf("warnings: %q", w.status().Warnings)
	}
	renewed := x509.NewCertPool()
	renewed.AppendCertsFromPEM(p.authority)
	w.write("config/keyfob/tls/key.pem", string(p.key))
	w.eventually("the new certificate is shown", func() bool { _, err := w.dialTLS(a, "keyfob.internal", renewed); return err == nil })
	if _, err := w.dialTLS(a, "keyfob.internal", roots); err == nil {
		t.Error("the old certificate is shown")
	}
	serves("after the renewal")
	if st := w.status(); st.ReloadError != "" || !strings.Contains(strings.Join(st.Warnings, "\n"), "ends at "+stampText(p.ends)) {
		t.Errorf("ten days before its end: %q, %q", st.ReloadError, st.Warnings)
	}
	if !strings.Contains(w.log.String(), "ends at "+stampText(p.ends)) {
		t.Error("the log does not warn")
	}

	// Without TLS: the same socket, and the old connection ends.
	w.config("[[endpoint]]\nkind = 'container'\nlisten = '" + a + "'\n")
	w.must(control.MethodReload, nil, nil)
	if code, _, err := open.do("GET", "/v1/credentials/app", "Authorization: "+string(token)); err != nil || code != 403 {
		t.Errorf("TLS where there is none any more: %d, %v", code, err)
	}
	w.must(control.MethodGrantList, nil, &list)
	if want := "http://" + a + "/v1/credentials/app"; !strings.HasPrefix(list.Grants[0].URL, "http://") || list.Grants[0].URL != want && list.Grants[1].URL != want {
		t.Errorf("the list has %+v, want %s", list.Grants, want)
	}
}

// TestTLSValidate: what is wrong with the two files or their settings is told
// by file, line and hint, and keyfobd does not start with it.
func TestTLSValidate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := freePort(t)
	secret := "tls/key.pem"
	for _, c := range []struct {
		name   string
		before func()
		config string
		code   int
		want   []string
	}{
		{"good", func() {}, secureToml(a), 0, []string{"ok\n"}},
		{"on a bridge", func() {}, secureToml("172.17.0.1:443") + "allow_unidentified = true\n", 0, []string{"ok\n"}},
		{"ten days left", func() { w.pair(10*24*time.Hour, "keyfob.internal") }, secureToml(a), 0, []string{"warning: the certificate of the endpoint " + a, "ends at"}},
		{"expired", func() { w.pair(time.Minute, "keyfob.internal") }, secureToml(a), 0, []string{"warning: the certificate of the endpoint " + a, "ended at", "clients refuse it"}},
		{"no file", func() { _ = os.Remove(w.path("config/keyfob/" + secret)) }, secureToml(a), 1, []string{"config.toml:5: ", "no such file"}},
		{"others read the key", func() { _ = os.Chmod(w.path("config/keyfob/"+secret), 0o644) }, secureToml(a), 1, []string{"config.toml:5: ", "(0644)", "hint: chmod 600 "}},
		{"another key", func() {
			p, _ := newPair([]string{"x"}, time.Hour)
			w.write("config/keyfob/"+secret, string(p.key))
		}, secureToml(a), 1, []string{"config.toml:4: ", "not that of the certificate", "hint: "}},
		{"no key in it", func() { w.write("config/keyfob/"+secret, "x") }, secureToml(a), 1, []string{"config.toml:4: ", "hint: two files in PEM"}},
		{"a directory", func() { _ = os.Remove(w.path("config/keyfob/" + secret)); w.write("config/keyfob/"+secret+"/x", "") }, secureToml(a), 1, []string{"config.toml:5: ", "is no file"}},
	} {
		_ = os.RemoveAll(w.path("config/keyfob/tls"))
		w.pair(100*24*time.Hour, "keyfob.internal")
		c.before()
		w.config(c.config)
		out, code := w.once("validate")
		if code != c.code {
			t.Errorf("%s: exit %d, %s", c.name, code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q does not say %q", c.name, out, want)
			}
		}
		if c.code == 0 {
			continue
		}
		out, code = w.once("run")
		if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 1 || !strings.HasPrefix(lines[0], "keyfobd: cannot ") || len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
			t.Errorf("%s: run exits %d and says %q", c.name, code, out)
		}
	}
}

// TestTLSKeyOwner: the key of another user is refused, root's is not.
func TestTLSKeyOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	w := newWorld(t)
	w.pair(100*24*time.Hour, "keyfob.internal")
	w.config(secureToml("127.0.0.1:9913"))
	key := w.path("config/keyfob/tls/key.pem")
	for _, c := range []struct {
		uid  int
		mode os.FileMode
		code int
	}{{0, 0o400, 0}, {0, 0o640, 0}, {54321, 0o600, 1}, {0, 0o660, 1}, {0, 0o604, 1}} {
		if err := os.Chown(key, c.uid, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(key, c.mode); err != nil {
			t.Fatal(err)
		}
		if out, code := w.once("validate"); code != c.code {
			t.Errorf("user %d, %04o: exit %d, %s", c.uid, c.mode, code, out)
		}
	}
}

// TestMakeCertificate: two settings on standard output, three files, nothing
// replaced without --force; an authority that can vouch for these names and
// addresses alone, whose key is nowhere.
func TestMakeCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out, code := w.once("make-certificate", w.path("tls"), "keyfob.internal", "172.17.0.1", "fd00::7")
	if code != 0 || !strings.Contains(out, `tls_cert = "`+w.path("tls/cert.pem")+"\"\ntls_key = \""+w.path("tls/key.pem")+"\"\n") {
		t.Fatalf("exit %d, %s", code, out)
	}
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o644, "cert.pem": 0o644, "key.pem": 0o600} {
		if st, err := os.Stat(w.path("tls/" + name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if left, err := os.ReadDir(w.path("tls")); err != nil || len(left) != 3 {
		t.Errorf("the directory has %v, %v", left, err)
	}
	if strings.Contains(w.read("tls/ca.pem")+w.read("tls/cert.pem"), "PRIVATE") || strings.Count(w.read("tls/key.pem"), "PRIVATE KEY") != 2 {
		t.Error("there is another private key than the certificate's own")
	}
	pair, err := tls.X509KeyPair([]byte(w.read("tls/cert.pem")), []byte(w.read("tls/key.pem")))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.read("tls/ca.pem")))
	for name, good := range map[string]bool{"keyfob.internal": true, "172.17.0.1": true, "fd00::7": true, "172.17.0.2": false, "other.internal": false} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if days := pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore).Hours() / 24; days > longestCertificate {
		t.Errorf("it lasts %v days", days)
	}
	before := w.read("tls/key.pem")
	if out, code := w.once("make-certificate", w.path("tls"), "x.internal"); code != 1 || !strings.Contains(out, "key.pem exists\nhint: ") || w.read("tls/key.pem") != before {
		t.Errorf("a second one: exit %d, %s", code, out)
	}
	if out, code := w.once("make-certificate", "--force", "--days", "30", w.path("tls"), "x.internal"); code != 0 || w.read("tls/key.pem") == before {
		t.Errorf("by force: exit %d, %s", code, out)
	}
	// Of one kind alone, the authority can't vouch for the other.
	for name, other := range map[string]func(*x509.Certificate) int{
		"172.17.0.1": func(c *x509.Certificate) int { return len(c.ExcludedDNSDomains) },
		"x.internal": func(c *x509.Certificate) int { return len(c.ExcludedIPRanges) },
	} {
		if out, code := w.once("make-certificate", "--force", w.path("tls"), name); code != 0 {
			t.Fatalf("%s: exit %d, %s", name, code, out)
		}
		pair, err := tls.X509KeyPair([]byte(w.read("tls/cert.pem")), []byte(w.read("tls/key.pem")))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(w.read("tls/ca.pem")))
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil || other(authority) == 0 {
			t.Fatalf("%s: %v, nothing is excluded", name, err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(authority)
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		args []string
		code int
	}{{[]string{w.path("new")}, 2}, {nil, 2}, {[]string{w.path("new"), "http://x"}, 1}, {[]string{w.path("new"), "0.0.0.0"}, 1}, {[]string{w.path("new"), "x:1"}, 1}, {[]string{"--days", "826", w.path("new"), "x"}, 1}} {
		out, code := w.once(append([]string{"make-certificate"}, c.args...)...)
		if code != c.code || !strings.HasPrefix(out, "keyfobd: cannot ") {
			t.Errorf("%q: exit %d, %s", c.args, code, out)
		}
	}
	if _, err := os.Stat(w.path("new")); err == nil {
		t.Error("what can't be made leaves a directory")
	}
}

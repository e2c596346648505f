//go:build pkcs11

package rolesanywhere

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/ThalesGroup/crypto11"

	"keyfob/internal/cred"
)

const pin = "CANARY-41 92"

// softToken makes a token of SoftHSM with a key and a certificate of each
// kind: label and id are "ec" and e0, "rsa" and f0.
func softToken(t *testing.T, w *world) (module string) {
	t.Helper()
	util := tool(t, "softhsm2-util")
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			module = path
		}
	}
	if module == "" {
		t.Skip("libsofthsm2.so is not where it is looked for")
	}
	conf := w.file(t, "softhsm2.conf", []byte("directories.tokendir = "+w.dir+"/tokens\nlog.level = ERROR\n"))
	if err := os.Mkdir(w.dir+"/tokens", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	run(t, nil, util, "--init-token", "--free", "--label", "My token", "--pin", pin, "--so-pin", "12345678")
	for label, isRSA := range map[string]bool{"ec": false, "rsa": true} {
		leaf, key := w.root.leaf(t, isRSA)
		id := map[string]string{"ec": "e0", "rsa": "f0"}[label]
		run(t, nil, util, "--import", w.file(t, label+".key", keyPEM(t, key)), "--token", "My token", "--label", label, "--id", id, "--pin", pin)
		w.file(t, label+".pem", pemOf(leaf))
		c, err := crypto11.Configure(&crypto11.Config{Path: module, TokenLabel: "My token", Pin: pin, MaxSessions: 2})
		if err != nil {
			t.Fatal(err)
		}
		err = c.ImportCertificateWithLabel([]byte(map[string]string{"ec": "\xe0", "rsa": "\xf0"}[label]), []byte(label+" certificate"), leaf)
		if cerr := c.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
	}
	w.canaries = append(w.canaries, pin, strings.ReplaceAll(pin, " ", "%20"))
	w.deps.PKCS11Module = module
	return module
}

func TestToken(t *testing.T) {
	w := newWorld(t)
	module := softToken(t, w)
	query := "?pin-value=" + strings.ReplaceAll(pin, " ", "%20")
	const at = "pkcs11:model=SoftHSM%20v2;token=My%20token"

	// Certificate and key in the token, by label of the certificate and by id.
	w.good(t, "certificate", at+";object=ec%20certificate"+query)
	w.good(t, "certificate", at+";id=%F0"+query)
	w.good(t, "certificate", at+";id=%E0;type=cert"+query+"&module-path="+module)
	// The key alone.
	w.good(t, "certificate", w.dir+"/ec.pem", "private_key", at+";object=ec"+query)
	w.good(t, "certificate", w.dir+"/rsa.pem", "private_key", at+query)
	// The PIN from a file, and from the vault.
	if err := os.WriteFile(w.dir+"/pin", []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.good(t, "certificate", at+";id=%E0?pin-source=file:"+w.dir+"/pin")
	uri := at + ";id=%E0"
	w.unready(t, []string{"private keys are seen only with the PIN"}, "certificate", w.dir+"/ec.pem", "private_key", uri)
	if err := PutPassphrase(t.Context(), w.store, uri, cred.NewSecret(pin)); err != nil {
		t.Fatal(err)
	}
	s := w.source(t, "certificate", uri)
	if _, ok := s.CertificateExpires(t.Context()); ok {
		t.Error("known before the token was asked")
	}
	if _, err := w.fetch(t, s); err != nil {
		t.Fatal(err)
	}
	if at, ok := s.CertificateExpires(t.Context()); !ok || at.IsZero() {
		t.Errorf("%v %v", at, ok)
	}

	w.unready(t, []string{"the token My token: it has no such certificate", "p11tool"}, "certificate", at+";object=none"+query)
	w.unready(t, []string{"more than one certificate with a key"}, "certificate", at+query)
	w.unready(t, []string{"the module " + module + " sees no such token"}, "certificate", "pkcs11:token=other;id=%E0")
	w.unready(t, []string{"the module /none.so can't be loaded", "module-path"}, "certificate", at+";id=%E0"+query+"&module-path=/none.so")
	w.refused(t, []string{"is another certificate's"}, "certificate", w.dir+"/ec.pem", "private_key", at+";object=rsa"+query)
	other := newAuthority(t, nil, "other")
	c, _ := other.leaf(t, false)
	w.unready(t, []string{"it has no such private key"}, "certificate", w.file(t, "o.pem", pemOf(c)), "private_key", at+query)

	// Many at once.
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := w.fetch(t, s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// unready fetches, and expects a token that does not do its part.
func (w *world) unready(t *testing.T, parts []string, kv ...string) {
	t.Helper()
	_, err := w.fetch(t, w.source(t, kv...))
	if !errors.Is(err, cred.ErrUnavailable) {
		t.Errorf("%T %v", err, err)
		return
	}
	says(t, err, parts...)
}

// TestWrongPIN: a wrong PIN is tried once, whatever the profiles that have
// it.
func TestWrongPIN(t *testing.T) {
	w := newWorld(t)
	softToken(t, w)
	const uri = "pkcs11:token=My%20token;id=%E0"
	w.canaries = append(w.canaries, "CANARY-wrong")
	w.refused(t, []string{"the token My token does not take the PIN", "a few wrong ones lock a token"}, "certificate", uri+"?pin-value=CANARY-wrong")
	// Were it tried, the module would be missed.
	w.refused(t, []string{"the token My token does not take the PIN"}, "certificate", uri+"?pin-value=CANARY-wrong&module-path=/none.so")
	w.good(t, "certificate", uri+"?pin-value="+strings.ReplaceAll(pin, " ", "%20"))
}

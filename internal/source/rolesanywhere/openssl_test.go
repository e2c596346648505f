package rolesanywhere

import (
	"os"
	"strings"
	"testing"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// TestOpenSSL reads what openssl has made: keys in every form, encrypted and
// not, DER, and PKCS #12 of both generations.
func TestOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	for _, kind := range []string{"EC", "RSA"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			at := func(name string) string { return w.dir + "/" + name }
			ssl := func(args ...string) { t.Helper(); run(t, nil, append([]string{openssl}, args...)...) }
			// A root, an intermediate and a leaf, as the manual has them.
			write := func(name, text string) string {
				t.Helper()
				if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return at(name)
			}
			authority := write("ca.ext", "basicConstraints=critical,CA:true\nkeyUsage=keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n")
			client := write("leaf.ext", "basicConstraints=CA:false\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\nextendedKeyUsage=clientAuth\n")
			pass := "pass:" + passphrase
			key := func(name string) {
				t.Helper()
				if kind == "EC" || name != "leaf.key" {
					ssl("ecparam", "-name", "prime256v1", "-genkey", "-out", at(name)) // with EC PARAMETERS, in SEC1
				} else {
					ssl("genrsa", "-traditional", "-out", at(name), "2048") // PKCS #1
				}
				b, err := os.ReadFile(at(name))
				if err != nil {
					t.Fatal(err)
				}
				w.watch(b)
			}
			key("root.key")
			ssl("req", "-x509", "-new", "-key", at("root.key"), "-subj", "/CN=root", "-days", "30", "-out", at("root.pem"))
			issue := func(name, by, ext string) {
				t.Helper()
				key(name + ".key")
				ssl("req", "-new", "-key", at(name+".key"), "-subj", "/C=DE/O=Test/CN="+name, "-out", at(name+".csr"))
				ssl("x509", "-req", "-in", at(name+".csr"), "-CA", at(by+".pem"), "-CAkey", at(by+".key"), "-CAcreateserial", "-days", "30", "-sha256", "-extfile", ext, "-out", at(name+".pem"))
			}
			issue("mid", "root", authority)
			issue("leaf", "mid", client)
			root, err := os.ReadFile(at("root.pem"))
			if err != nil {
				t.Fatal(err)
			}
			w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root)})
			vault := func(path string) {
				t.Helper()
				if err := PutPassphrase(t.Context(), w.store, path, cred.NewSecret(passphrase)); err != nil {
					t.Fatal(err)
				}
			}
			with := func(key string) {
				t.Helper()
				w.good(t, "certificate", at("leaf.pem"), "private_key", key, "intermediates", at("mid.pem"))
			}
			with(at("leaf.key"))
			ssl("pkcs8", "-topk8", "-nocrypt", "-in", at("leaf.key"), "-out", at("leaf.p8"))
			with(at("leaf.p8"))
			ssl("pkey", "-in", at("leaf.key"), "-outform", "DER", "-out", at("leaf.der.key"))
			with(at("leaf.der.key"))
			ssl("x509", "-in", at("leaf.pem"), "-outform", "DER", "-out", at("leaf.der"))
			w.good(t, "certificate", at("leaf.der"), "private_key", at("leaf.key"), "intermediates", at("mid.pem"))
			if kind == "RSA" {
				ssl("rsa", "-in", at("leaf.key"), "-traditional", "-outform", "DER", "-out", at("leaf.p1.der"))
			} else {
				ssl("ec", "-in", at("leaf.key"), "-outform", "DER", "-out", at("leaf.p1.der"))
			}
			with(at("leaf.p1.der"))

			for name, args := range map[string][]string{
				"aes256.p8":  {"-v2", "aes-256-cbc"},
				"aes128.p8":  {"-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512", "-iter", "5000"},
				"sha1.p8":    {"-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA1"},
				"des3.p8":    {"-v2", "des3"},
				"scrypt.p8":  {"-scrypt"},
				"aes.der.p8": {"-v2", "aes-256-cbc", "-outform", "DER"},
			} {
				ssl(append([]string{"pkcs8", "-topk8", "-in", at("leaf.key"), "-out", at(name), "-passout", pass}, args...)...)
				w.refused(t, []string{"its private key is encrypted, and the vault has no passphrase for it", "openssl pkey"},
					"certificate", at("leaf.pem"), "private_key", at(name))
				vault(at(name))
				with(at(name))
				if err := PutPassphrase(t.Context(), w.store, at(name), cred.NewSecret("CANARY-wrong")); err != nil {
					t.Fatal(err)
				}
				w.refused(t, []string{"the passphrase of the vault does not open its private key"}, "certificate", at("leaf.pem"), "private_key", at(name))
				delete(w.store.records, PassphraseRecord(at(name)))
			}
			ssl("pkcs8", "-topk8", "-in", at("leaf.key"), "-out", at("old.p8"), "-passout", pass, "-v1", "PBE-SHA1-3DES")
			vault(at("old.p8"))
			w.refused(t, []string{"encrypted in a way that keyfob can't read", "is not PBES2", "openssl pkcs8 -topk8"}, "certificate", at("leaf.pem"), "private_key", at("old.p8"))
			// PEM encryption of old
			cmd := map[string]string{"EC": "ec", "RSA": "rsa"}[kind]
			args := []string{cmd, "-in", at("leaf.key"), "-aes128", "-passout", pass, "-out", at("legacy.pem")}
			if kind == "RSA" {
				args = append(args, "-traditional")
			}
			ssl(args...)
			if b, err := os.ReadFile(at("legacy.pem")); err != nil || !strings.Contains(string(b), "Proc-Type: 4,ENCRYPTED") {
				t.Fatalf("%s %v", b, err)
			}
			w.refused(t, []string{"its private key is encrypted"}, "certificate", at("leaf.pem"), "private_key", at("legacy.pem"))
			vault(at("legacy.pem"))
			with(at("legacy.pem"))

			// PKCS #12
			both := []string{"pkcs12", "-export", "-inkey", at("leaf.key"), "-in", at("leaf.pem"), "-certfile", at("mid.pem"), "-name", "machine"}
			for name, args := range map[string][]string{
				"modern.p12": nil,
				"legacy.p12": {"-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"},
				"mixed.p12":  {"-certpbe", "NONE", "-keypbe", "AES-256-CBC"},
				"sha512.p12": {"-macalg", "sha512"},
			} {
				ssl(append(append(append([]string{}, both...), args...), "-out", at(name), "-passout", pass)...)
				w.refused(t, []string{"PKCS #12 with a passphrase, and the vault has none"}, "certificate", at(name))
				vault(at(name))
				w.good(t, "certificate", at(name))
				if err := PutPassphrase(t.Context(), w.store, at(name), cred.NewSecret("CANARY-wrong")); err != nil {
					t.Fatal(err)
				}
				w.refused(t, []string{"the passphrase of the vault does not open it"}, "certificate", at(name))
			}
			if _, err := try(t, nil, append(append([]string{openssl}, both...), "-legacy", "-out", at("rc2.p12"), "-passout", pass)...); err == nil {
				vault(at("rc2.p12"))
				w.good(t, "certificate", at("rc2.p12"))
			} else {
				t.Log("this openssl has no legacy provider: RC2 is not tested")
			}
			ssl(append(both, "-out", at("open.p12"), "-passout", "pass:")...)
			w.good(t, "certificate", at("open.p12"))
			w.good(t, "certificate", at("leaf.pem"), "private_key", at("open.p12"), "intermediates", at("open.p12"))
			// Out of PKCS #12 again, with its attributes between the parts.
			ssl("pkcs12", "-in", at("open.p12"), "-nodes", "-passin", "pass:", "-out", at("out.pem"))
			w.good(t, "certificate", at("out.pem"))

			// Into the vault from each.
			for _, name := range []string{"open.p12", "out.pem", "modern.p12"} {
				b, err := os.ReadFile(at(name))
				if err != nil {
					t.Fatal(err)
				}
				if err := PutCertificate(t.Context(), w.store, "m-"+name, cred.SecretBytes(b), cred.NewSecret(passphrase)); err != nil {
					t.Fatal(err)
				}
				w.good(t, "certificate", "vault:m-"+name)
			}
			for name, parts := range map[string][]string{"mid.csr": {"request for a certificate"}} {
				w.refused(t, parts, "certificate", at(name))
			}
			ssl("crl2pkcs7", "-nocrl", "-certfile", at("leaf.pem"), "-out", at("leaf.p7b"))
			w.refused(t, []string{"openssl pkcs7 -print_certs"}, "certificate", at("leaf.p7b"))
			ssl("x509", "-in", at("leaf.pem"), "-trustout", "-out", at("trusted.pem"))
			w.refused(t, []string{"form of OpenSSL's own"}, "certificate", at("trusted.pem"))
		})
	}
}

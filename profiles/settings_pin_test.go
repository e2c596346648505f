package profiles

import "testing"

func TestPINIsRedacted(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/cert.pem":                    "/etc/cert.pem",
		"pkcs11:token=x;object=y":          "pkcs11:token=x;object=y",
		"pkcs11:token=x?pin-value=1234":    "pkcs11:token=x?pin-value=[redacted]",
		"pkcs11:a?pin-value=1&module=b":    "pkcs11:a?pin-value=[redacted]&module=b",
		"pkcs11:a?pin-value=1&pin-value=2": "pkcs11:a?pin-value=[redacted]&pin-value=[redacted]",
		"/a?pin-value=1":                   "/a?pin-value=1",
	} {
		if got := redact("roles_anywhere_private_key", in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

package mfa

import (
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// The SHA-1 rows of RFC 6238, appendix B, cut to six digits.
func TestVectorsOfTheRFC(t *testing.T) {
	t.Parallel()
	key, err := parseSeed(cred.NewSecret(seedText))
	if err != nil || string(key) != "12345678901234567890" {
		t.Fatalf("%q %v", key, err)
	}
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := codeOf(key, stepOf(time.Unix(at, 0))); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
	if n := stepOf(time.Unix(-5, 0)); n != 0 {
		t.Errorf("before 1970: %d", n)
	}
}

func TestSeedsAsTheyAreShown(t *testing.T) {
	t.Parallel()
	for _, text := range []string{seedText, strings.ToLower(seedText), " GEZD GNBV GY3T QOJQ gezd-gnbv gy3t qojq\n", seedText + "======",
		"otpauth://totp/Amazon%20Web%20Services:alice@111122223333?secret=" + seedText + "&issuer=Amazon%20Web%20Services",
		"OTPAUTH://TOTP/x?secret=" + strings.ToLower(seedText) + "&algorithm=sha1&digits=6&period=30",
	} {
		key, err := parseSeed(cred.NewSecret(text))
		if err != nil || string(key) != "12345678901234567890" {
			t.Errorf("%s: %v", text, err)
		}
	}
	const canary = "CANARYCANARYCANARYCANARYCANARY22"
	for text, want := range map[string]string{
		"": "it is empty", "  \n": "it is empty", "123456": "the seed is wanted", "GEZDGNBV": "too short", canary + "!": "not base32", canary + "1": "not base32",
		strings.Repeat("A", 4096):                            "too long",
		"otpauth://hotp/x?secret=" + canary:                  "not of time-based codes",
		"otpauth://totp/x?issuer=" + canary:                  "holds no secret",
		"otpauth://totp/x?digits=8&secret=" + canary:         "another digits than 6",
		"otpauth://totp/x?period=60&secret=" + canary:        "another period than 30",
		"otpauth://totp/x?algorithm=SHA256&secret=" + canary: "another algorithm than SHA1",
		"otpauth://totp/x?secret=%zz" + canary:               "can be read",
		"otpauth://to tp/x?secret=" + canary:                 "can be read",
		"https://example/?secret=" + canary:                  "not base32",
	} {
		_, err := parseSeed(cred.NewSecret(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(all(err), "CANARY") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

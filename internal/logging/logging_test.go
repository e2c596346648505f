package logging

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const canary = "CANARY/wJalrXUtnFEMI+K7MDENG0bPxRfiCYzz"

func TestSecretsInForeignTextsAreBlanked(t *testing.T) {
	for _, text := range []string{
		`{"SecretAccessKey":"` + canary + `"}`,
		`{"Token" : "` + canary + `"}`,
		`<SecretAccessKey>` + canary + `</SecretAccessKey>`,
		`<SessionToken>` + canary + `</SessionToken>`,
		`Action=AssumeRole&TokenCode=` + canary,
		`aws_secret_access_key = ` + canary,
		`X-Amz-Security-Token: ` + canary,
		`Authorization: ` + canary,
	} {
		for _, format := range []string{"text", "json"} {
			var b bytes.Buffer
			l, err := New(&b, "info", format)
			if err != nil {
				t.Fatal(err)
			}
			l.WithError(errors.New(text)).WithField("answer", text).Warn("upstream answered " + text)
			if strings.Contains(b.String(), "CANARY") {
				t.Errorf("%s log of %q shows the secret: %s", format, text[:20], b.String())
			}
			if !strings.Contains(b.String(), "[redacted]") {
				t.Errorf("%s log has no mark: %s", format, b.String())
			}
		}
	}
}

func TestOrdinaryLinesStayAsTheyAre(t *testing.T) {
	var b bytes.Buffer
	l, err := New(&b, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	l.WithField(Profile, "prod-admin").WithField(Expires, "2026-01-02T03:04:05Z").Info("session refreshed")
	if !strings.Contains(b.String(), "prod-admin") || !strings.Contains(b.String(), "2026-01-02T03:04:05Z") || strings.Contains(b.String(), "redacted") {
		t.Errorf("log line: %s", b.String())
	}
}

func TestLevelsAreChecked(t *testing.T) {
	if _, err := New(&bytes.Buffer{}, "loud", "text"); err == nil {
		t.Error("an unknown level was taken")
	}
}

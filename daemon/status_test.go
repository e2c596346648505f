package daemon

import (
	"testing"
	"time"

	"keyfob/internal/broker"
	"keyfob/internal/control"
)

// TestSessionsWarnOnce: sessions that status shows as one warn once.
func TestSessionsWarnOnce(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	var out control.StatusResult
	for _, region := range []string{"", "eu-west-1"} {
		warnOfSession(&out, &broker.Session{Profile: "dev", Region: region, NeedsPerson: true, EndsAt: soon, Certificate: soon})
	}
	warnOfSession(&out, &broker.Session{Profile: "other", Certificate: soon})
	if len(out.Warnings) != 3 {
		t.Errorf("%q", out.Warnings)
	}
}

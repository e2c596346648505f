package daemon

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/profiles"
)

func TestUpstreamCallsOfOneUserAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u upstream
		for n := range manyUpstream {
			if !u.allow("1000") {
				t.Fatalf("call %d is refused", n)
			}
		}
		if u.allow("1000") || !u.allow("1001") {
			t.Error("one more is allowed, or another user's is refused")
		}
		time.Sleep(time.Minute)
		if !u.allow("1000") {
			t.Error("refused in the next minute")
		}
	})
}

func TestReadersOfTheAuditLogAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readers
		for range manyReaders {
			if !r.take("1000") {
				t.Fatal("refused")
			}
		}
		if r.take("1000") || !r.take("1001") {
			t.Error("one more is allowed, or another user's is refused")
		}
		r.give("1000")
		if !r.take("1000") {
			t.Error("refused after one has ended")
		}
		if !r.flush("1000") || r.flush("1000") || !r.flush("1001") {
			t.Error("he flushes twice, or another does not")
		}
		time.Sleep(flushAgain)
		if !r.flush("1000") || len(r.flushed) != 1 {
			t.Errorf("%v", r.flushed)
		}
	})
}

// TestLinesForOthers: exec's private file has what a program needs, and
// nothing that explain hides.
func TestLinesForOthers(t *testing.T) {
	p := &profiles.Profile{}
	for name, value := range map[string]string{"region": "eu-west-1", "s3.addressing_style": "path", "services.sts.endpoint_url": "http://127.0.0.1:1", "ca_bundle": "/etc/ca.pem",
		"note": "CANARY", "s3.own": "CANARY", "session_policy": "/CANARY"} {
		p.Settings = append(p.Settings, profiles.Setting{Name: name, Value: value})
	}
	lines := usersLines(p)
	if strings.Contains(lines, "CANARY") || len(p.Settings) != 7 {
		t.Error(lines)
	}
	for _, want := range []string{"region = eu-west-1", "addressing_style = path", "endpoint_url = http://127.0.0.1:1", "ca_bundle = /etc/ca.pem"} {
		if !strings.Contains(lines, want) {
			t.Errorf("%s is missing in %q", want, lines)
		}
	}
}

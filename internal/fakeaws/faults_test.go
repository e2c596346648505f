package fakeaws_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// Every kind of fault over a real socket, judged by the Go SDK or by the raw
// answer.
func TestFaultKinds(t *testing.T) {
	s, url := fakeawstest.Start(t)
	id, secret := s.AddUser(fakeaws.UserSpec{})
	role := s.AddRole(fakeaws.RoleSpec{})
	p := as(t, s, id, secret, "").at(url, nil)
	fails := func(part string) func(*testing.T, *sts.AssumeRoleOutput, error) {
		return func(t *testing.T, _ *sts.AssumeRoleOutput, err error) {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("got %v, want an error with %q", err, part)
			}
		}
	}
	for _, c := range []struct {
		fault fakeaws.Fault
		check func(*testing.T, *sts.AssumeRoleOutput, error)
	}{
		{fakeaws.Fault{Kind: fakeaws.Drop}, fails("EOF")},
		{fakeaws.Fault{Kind: fakeaws.Late}, fails("EOF")},
		{fakeaws.Fault{Kind: fakeaws.Half}, fails("EOF")},
		{fakeaws.Fault{Kind: fakeaws.Fail500}, func(t *testing.T, _ *sts.AssumeRoleOutput, err error) {
			refused(t, err, 500, "InternalFailure", "The request processing has failed because of an unknown error, exception or failure.")
		}},
		{fakeaws.Fault{Kind: fakeaws.Throttle}, func(t *testing.T, _ *sts.AssumeRoleOutput, err error) {
			refused(t, err, 503, "Throttling", "Rate exceeded")
		}},
		{fakeaws.Fault{Kind: fakeaws.Throttle, Status: 400}, func(t *testing.T, _ *sts.AssumeRoleOutput, err error) {
			refused(t, err, 400, "Throttling", "Rate exceeded")
		}},
		{fakeaws.Fault{Kind: fakeaws.Error, Status: 403, Code: "RegionDisabledException", Message: "STS is not activated in this region"}, func(t *testing.T, _ *sts.AssumeRoleOutput, err error) {
			refused(t, err, 403, "RegionDisabledException", "STS is not activated in this region")
		}},
		{fakeaws.Fault{Kind: fakeaws.Garbage}, fails("deserializ")},
		{fakeaws.Fault{Kind: fakeaws.Empty}, func(t *testing.T, out *sts.AssumeRoleOutput, err error) {
			if err == nil && out.Credentials != nil {
				t.Error("credentials out of nothing")
			}
		}},
		{fakeaws.Fault{Kind: fakeaws.ErrorIn200}, func(t *testing.T, out *sts.AssumeRoleOutput, err error) {
			if err == nil && out.Credentials != nil {
				t.Error("credentials out of an error")
			}
		}},
		{fakeaws.Fault{Kind: fakeaws.Redirect, Location: url + "/elsewhere"}, fails("307")},
		{fakeaws.Fault{Kind: fakeaws.Hang, Seconds: 0.05}, func(t *testing.T, _ *sts.AssumeRoleOutput, err error) {
			if err != nil {
				t.Error(err)
			}
		}},
		{fakeaws.Fault{Kind: fakeaws.PastExpiry}, func(t *testing.T, out *sts.AssumeRoleOutput, err error) {
			if err != nil {
				t.Fatal(err)
			}
			near(t, "expiration", *out.Credentials.Expiration, time.Now().Add(-time.Hour))
		}},
		{fakeaws.Fault{Kind: fakeaws.FarExpiry}, func(t *testing.T, out *sts.AssumeRoleOutput, err error) {
			if err != nil {
				t.Fatal(err)
			}
			near(t, "expiration", *out.Credentials.Expiration, time.Now().AddDate(1, 0, 0))
		}},
		{fakeaws.Fault{Kind: fakeaws.WrongAccount}, func(t *testing.T, out *sts.AssumeRoleOutput, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if arn := *out.AssumedRoleUser.Arn; strings.Contains(arn, "111122223333") || !strings.HasSuffix(arn, ":assumed-role/role/sess") {
				t.Errorf("assumed %s", arn)
			}
		}},
	} {
		t.Run(string(c.fault.Kind), func(t *testing.T) {
			c.fault.Count = 1
			s.SetFaults(c.fault)
			s.ResetCalls()
			out, err := p.assume(role, nil)
			c.check(t, out, err)
			if calls := s.Calls(); len(calls) != 1 || calls[0].Fault != c.fault.Kind || !calls[0].Done {
				t.Errorf("recorded %+v", calls)
			}
			if _, err := p.assume(role, nil); err != nil { // it was for once
				t.Errorf("after the fault: %v", err)
			}
		})
	}
	// No Date header: seen on the raw answer.
	s.SetFaults(fakeaws.Fault{Kind: fakeaws.NoDate})
	resp, err := p.cfg.HTTPClient.Do(signedIdentity(t, url, id, secret))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Values("Date") != nil {
		t.Errorf("status %d, Date %q", resp.StatusCode, resp.Header.Values("Date"))
	}
}

func TestFaultSelection(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	one, two := s.AddRole(fakeaws.RoleSpec{Name: "one"}), s.AddRole(fakeaws.RoleSpec{Name: "two"})
	p := as(t, s, id, secret, "")
	s.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "AssumeRole", RoleARN: "*:role/one", After: 1, Count: 2})
	got := ""
	for range 4 {
		for _, arn := range []string{one, two} {
			if _, err := p.assume(arn, nil); err != nil {
				got += "x"
			} else {
				got += "."
			}
		}
		if _, err := p.who(); err != nil {
			t.Errorf("another action is hit: %v", err)
		}
	}
	if got != "..x.x..." {
		t.Errorf("the fault hit %s", got)
	}
	if n := s.Counters(); n["AssumeRole"] != 8 || n["GetCallerIdentity"] != 4 || n["*"] != 12 {
		t.Errorf("counted %v", n)
	}
}

func TestLatencyAndHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{})
		p := as(t, s, id, secret, "")
		took := func() time.Duration {
			start := time.Now()
			if _, err := p.who(); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		s.SetLatency("*", time.Second)
		s.SetLatency("GetCallerIdentity", 3*time.Second)
		if d := took(); d != 3*time.Second {
			t.Errorf("took %v", d)
		}
		s.SetLatency("GetCallerIdentity", 0)
		if d := took(); d != time.Second {
			t.Errorf("took %v", d)
		}
		s.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Seconds: 7, Count: 1})
		if d := took(); d != 8*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

func TestCallsHoldNoSecrets(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{Serial: "arn:aws:iam::111122223333:mfa/a"}}})
	role := s.AddRole(fakeaws.RoleSpec{})
	p := as(t, s, id, secret, "")
	code, serial := s.MFACode("arn:aws:iam::111122223333:mfa/a"), "arn:aws:iam::111122223333:mfa/a"
	out, err := p.sts().GetSessionToken(context.Background(), &sts.GetSessionTokenInput{SerialNumber: &serial, TokenCode: &code})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.with(out.Credentials).assume(role, nil); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, c := range s.Calls() {
		for k, v := range c.Params {
			all.WriteString(k + "=" + v + "\n")
		}
	}
	for _, canary := range []string{secret, code, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken} {
		if strings.Contains(all.String(), canary) {
			t.Errorf("a call shows a secret: %s", all.String())
		}
	}
	c := s.Calls("AssumeRole")
	if len(c) != 1 || c[0].AccessKey != *out.Credentials.AccessKeyId || c[0].Principal != alice || c[0].Region != "eu-west-1" ||
		c[0].Params["RoleArn"] != role || c[0].Status != 200 || c[0].Service != "sts" || !strings.HasPrefix(c[0].Issued, "ASIA") || c[0].Expires == nil {
		t.Errorf("recorded %+v", c)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{})
		p := as(t, s, id, secret, "")
		s.SetLatency("*", time.Second)
		start := time.Now()
		go func() {
			for range 2 {
				_, _ = p.who()
			}
		}()
		if err := s.Wait(context.Background(), "GetCallerIdentity", 2); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("waited %v, %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Wait(ctx, "GetCallerIdentity", 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func signedIdentity(t *testing.T, url, id, secret string) *http.Request {
	t.Helper()
	g := signed{"sts", "eu-west-1", time.Now(), credsOf(id, secret)}
	return g.sign(t, newRequest("POST", url+"/", identityForm), identityForm)
}

func TestOutages(t *testing.T) {
	s, url := fakeawstest.Start(t)
	id, secret := s.AddUser(fakeaws.UserSpec{})
	addr := strings.TrimPrefix(url, "http://")
	kept := &http.Transport{}
	t.Cleanup(kept.CloseIdleConnections)
	p := as(t, s, id, secret, "").at(url, &http.Client{Transport: kept, Timeout: 300 * time.Millisecond})
	for _, o := range []fakeaws.Outage{fakeaws.Refused, fakeaws.Closed, fakeaws.Silent} {
		if _, err := p.who(); err != nil { // leaves a kept connection
			t.Fatalf("before %s: %v", o, err)
		}
		s.ResetCalls()
		if err := s.SetOutage(o); err != nil {
			t.Fatal(err)
		}
		if _, err := p.who(); err == nil {
			t.Errorf("%s: answered", o)
		}
		c, err := net.Dial("tcp", addr)
		if (err != nil) != (o == fakeaws.Refused) {
			t.Errorf("%s: dialling says %v", o, err)
		}
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			var timeout net.Error
			if silent := errors.As(err, &timeout) && timeout.Timeout(); silent != (o == fakeaws.Silent) {
				t.Errorf("%s: reading says %v", o, err)
			}
			_ = c.Close()
		}
		if n := s.Count("*"); n != 0 {
			t.Errorf("%s: %d requests came through", o, n)
		}
		if err := s.SetOutage(fakeaws.Up); err != nil {
			t.Fatal(err)
		}
		if _, err := p.who(); err != nil {
			t.Errorf("after %s: %v", o, err)
		}
	}
}

// A handler on somebody else's server has no listener to close.
func TestOutageOfABareHandler(t *testing.T) {
	s := fakeaws.New()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.Handler()}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	defer func() { _ = srv.Close(); <-done }()
	if err := s.SetOutage(fakeaws.Refused); err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	_, err = (&http.Client{Transport: tr}).Get("http://" + ln.Addr().String())
	if !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func TestStopEndsHangingCalls(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url, stop, err := s.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang})
	result := make(chan error)
	go func() { _, err := as(t, s, id, secret, "").at(url, nil).who(); result <- err }()
	for s.Count("*") == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	stop()
	if err := <-result; err == nil {
		t.Error("a hanging call was answered")
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		t.Error("still listening")
	}
}

func TestTLS(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	ca, err := fakeaws.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	url, stop, err := s.Listen(context.Background(), "127.0.0.1:0", ca)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	p := as(t, s, id, secret, "")
	if arn, err := p.at(url, trusting(t, ca.PEM)).who(); err != nil || arn != alice {
		t.Errorf("with the authority: %s, %v", arn, err)
	}
	if arn, err := p.at(strings.Replace(url, "127.0.0.1", "localhost", 1), trusting(t, ca.PEM)).who(); err != nil || arn != alice {
		t.Errorf("by name: %s, %v", arn, err)
	}
	if _, err := p.at(url, nil).who(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the authority: %v", err)
	}
}

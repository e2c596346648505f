package ops

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

const day = 24 * time.Hour

func (w *world) whoami(chain ...profiles.Link) (Identity, error) {
	w.t.Helper()
	return w.who(WhoamiRequest{Profile: "dev", Chain: chain, Credentials: w.handedOut(chain...), Keys: w.readKeys})
}

func (w *world) who(r WhoamiRequest) (Identity, error) {
	w.t.Helper()
	who, err := w.deps.Whoami(w.t.Context(), r)
	w.noSecrets(err, who.Warnings...)
	return who, err
}

func TestWhoamiOfAUser(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	chain := []profiles.Link{w.vaultKeys(), w.link(profiles.KindSessionToken)}
	who, err := w.whoami(chain...)
	if err != nil {
		t.Fatal(err)
	}
	if who.ARN != "arn:aws:iam::111122223333:user/alice" || who.AccountID != account || !strings.HasPrefix(who.UserID, "AIDA") || who.Root || who.Alias != "example-"+account {
		t.Errorf("%+v", who)
	}
	if !slices.Equal(who.Warnings, []string{"user alice has no MFA device"}) {
		t.Errorf("%q", who.Warnings)
	}
}

// TestOldKeys: the ages are AWS's where it tells them, else the vault's.
func TestOldKeys(t *testing.T) {
	const serial = "arn:aws:iam::111122223333:mfa/alice"
	w := newWorld(t, fakeaws.UserSpec{Name: "other"})
	w.aws.SetClock(-200 * day)
	w.addUser(fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{Serial: serial}}})
	w.aws.SetClock(0)
	old := "the access key " + w.keys.AccessKeyID + " of user alice is 200 days old: keyfob rotate dev"

	plain := []profiles.Link{w.vaultKeys(), w.link(profiles.KindSessionToken)}
	coded := []profiles.Link{w.vaultKeys(), w.link(profiles.KindSessionToken, "mfa_serial", serial)}
	role := []profiles.Link{w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", deployer(w))}
	for name, chain := range map[string][]profiles.Link{"user": plain, "user with a code": coded, "role of the user": role} {
		w.aws.ResetCalls()
		// The vault's date does not count where AWS tells its own.
		who, err := w.who(WhoamiRequest{Profile: "dev", Chain: chain, Credentials: w.handedOut(chain...), Keys: w.readKeys, KeysAdded: time.Now().Add(-100 * day)})
		if err != nil || !slices.Equal(who.Warnings, []string{old}) || who.Alias == "" {
			t.Errorf("%s: %+v %v", name, who, err)
		}
		for _, c := range w.aws.Calls("ListAccessKeys", "ListMFADevices") {
			if withSession := c.AccessKey != w.keys.AccessKeyID; c.Status != 200 || withSession != (name == "user with a code") {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}

	// Without the permission the date of the vault counts.
	w.aws.SetClock(-200 * day)
	w.addUser(fakeaws.UserSpec{Name: "bob", Deny: []string{"iam:*"}})
	w.aws.SetClock(0)
	r := WhoamiRequest{Profile: "dev", Chain: plain, Credentials: w.handedOut(plain...), Keys: w.readKeys, KeysAdded: time.Now().Add(-100 * day)}
	who, err := w.who(r)
	if want := "the access key " + w.keys.AccessKeyID + " has been in the vault for 100 days: keyfob rotate dev"; err != nil || !slices.Equal(who.Warnings, []string{want}) {
		t.Errorf("%q %v", who.Warnings, err)
	}
	r.KeysAdded = time.Now().Add(-10 * day)
	if who, err = w.who(r); err != nil || len(who.Warnings) != 0 || who.Warnings == nil || who.Alias != "" {
		t.Errorf("a denied look-up is said: %+v %v", who, err)
	}
	if !strings.Contains(w.logs.String(), "AccessDenied") {
		t.Error("the debug log does not say why nothing is said")
	}
}

func TestWhoamiOfTheRootUser(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{Root: true})
	who, err := w.whoami(w.vaultKeys(), w.link(profiles.KindSessionToken, "duration_seconds", "3600"))
	if err != nil {
		t.Fatal(err)
	}
	if !who.Root || len(who.Warnings) != 2 || !strings.HasPrefix(who.Warnings[0], "dev has the keys of the root user of account "+account) || who.Warnings[1] != "the root user of account "+account+" has no MFA device" {
		t.Errorf("%+v", who)
	}
}

// TestWhoamiGoesOn: what is no more than nice to know holds up nothing.
func TestWhoamiGoesOn(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	chain := []profiles.Link{w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", deployer(w))}
	for _, f := range []fakeaws.Kind{fakeaws.Fail500, fakeaws.Drop, fakeaws.Garbage, fakeaws.Throttle} {
		w.aws.SetFaults(fakeaws.Fault{Kind: f, Action: "ListAccessKeys"}, fakeaws.Fault{Kind: f, Action: "ListMFADevices"}, fakeaws.Fault{Kind: f, Action: "ListAccountAliases"})
		if who, err := w.whoami(chain...); err != nil || len(who.Warnings) != 0 || who.Alias != "" {
			t.Errorf("%s: %+v %v", f, who, err)
		}
	}
	w.aws.SetFaults()
	r := WhoamiRequest{Profile: "dev", Chain: chain, Credentials: w.handedOut(chain...),
		Keys: func(context.Context) (cred.Credentials, error) { return cred.Credentials{}, cred.ErrLocked }}
	if who, err := w.who(r); err != nil || len(who.Warnings) != 0 || who.Alias == "" {
		t.Errorf("with keys that can't be read: %+v %v", who, err)
	}

	// There is no identity without AWS.
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Fail500, Action: "GetCallerIdentity"})
	_, err := w.who(r)
	line(t, err, "cannot tell who dev is", "an error of its own")
	if !errors.Is(err, cred.ErrUnavailable) {
		t.Errorf("%#v", err)
	}
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Action: "GetCallerIdentity", Code: "ValidationError",
		Message: "no " + r.Credentials.SessionToken.Reveal() + " and no " + r.Credentials.SecretAccessKey.Reveal()})
	_, err = w.who(r)
	line(t, err, "ValidationError: no [redacted] and no [redacted]")
	w.aws.SetFaults()
	w.aws.RevokeAll(fakeaws.RevokedInvalid)
	_, err = w.who(r)
	line(t, err, "InvalidClientTokenId")

	// A chain of another kind has no user to look at.
	process := w.link(profiles.KindProcess)
	r = WhoamiRequest{Profile: "dev", Chain: []profiles.Link{process}, Region: region, Credentials: w.handedOut(chain...), Keys: w.readKeys}
	w.aws.ResetCalls()
	if who, err := w.who(r); err != nil || len(who.Warnings) != 0 || len(w.aws.Calls("ListAccessKeys", "ListMFADevices")) != 0 {
		t.Errorf("%+v %v", who, err)
	}
}

// TestWhoamiWaitsFiveSeconds for a look that hangs, and no longer.
func TestWhoamiWaitsFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		upstream := fakeaws.New()
		upstream.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Action: "ListMFADevices"}, fakeaws.Fault{Kind: fakeaws.Hang, Action: "ListAccountAliases"})
		l := pipes(make(chan net.Conn))
		server := &http.Server{Handler: upstream.Handler()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(l)
		}()
		p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }, Dial: l.dial})
		w := &world{t: t, aws: upstream, url: "http://fake.example", deps: Deps{Pool: p}, logs: new(bytes.Buffer)}
		w.addUser(fakeaws.UserSpec{})
		begun := time.Now()
		who, err := w.whoami(w.vaultKeys(), w.link(profiles.KindSessionToken))
		if err != nil || who.Alias != "" || len(who.Warnings) != 0 || time.Since(begun) != lookTimeout {
			t.Errorf("after %s: %+v %v", time.Since(begun), who, err)
		}
		p.CloseIdle()
		_ = server.Close()
		<-done
	})
}

// pipes is a listener in memory.
type pipes chan net.Conn

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error {
	close(p)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

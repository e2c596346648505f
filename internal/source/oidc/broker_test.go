package oidc

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/broker"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/interact"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

type kinds struct{ d Deps }

func (k kinds) For(l profiles.Link) (cred.Source, error) { return New(l, k.d) }

// TestThroughTheBroker: a hundred profiles of one sign-in with the real
// resolver, broker and queue. The broker lets 48 attempts in at once, which
// must not keep the one out that signs in.
func TestThroughTheBroker(t *testing.T) {
	t.Parallel()
	const n = 100
	w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	var config strings.Builder
	for i := range n {
		fmt.Fprintf(&config, "[profile p%d]\nrole_arn = %s\noidc_issuer = %s/oidc/idp\noidc_client_id = keyfob\nregion = eu-west-1\n", i,
			w.aws.AddRole(fakeaws.RoleSpec{Name: fmt.Sprint("role", i)}), w.base)
	}
	token := filepath.Join(t.TempDir(), "token")
	w.write(token, w.idToken("pod"))
	fmt.Fprintf(&config, "[profile file]\nrole_arn = %s\nweb_identity_token_file = %s\nregion = eu-west-1\n", w.roles[0], token)
	file := filepath.Join(t.TempDir(), "config")
	w.write(file, config.String())
	rules, err := access.NewRules(access.RulesConfig{Owner: peer.Self()})
	if err != nil {
		t.Fatal(err)
	}
	queue := interact.NewQueue(interact.Config{})
	b := broker.New(broker.Config{Sources: kinds{w.deps}, Store: &w.vault, Asker: queue, Rules: rules, Log: w.deps.Log, SigninTimeout: 30 * time.Second})
	b.SetProfiles(profiles.Load(profiles.Input{ConfigFile: file, Env: map[string]string{"AWS_ENDPOINT_URL_STS": w.url}}))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	defer running.Wait()
	defer cancel()

	request := func(profile string) cred.Request {
		return cred.Request{Caller: peer.Caller{UID: peer.Self(), Via: "unix"}, Profile: profile, MayAsk: true, Via: cred.Endpoint{Kind: cred.ViaLogin}}
	}
	all := func() (errs []error) {
		errs = make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				snap, err := b.Get(ctx, request(fmt.Sprint("p", i)))
				errs[i] = err
				if err == nil && !strings.HasSuffix(snap.RoleARN, fmt.Sprint("/role", i)) {
					t.Errorf("p%d got %s", i, snap.RoleARN)
				}
			})
		}
		wg.Wait()
		return errs
	}
	if _, err := b.Get(ctx, request("file")); err != nil {
		t.Fatal(err)
	}
	var ie *cred.InteractionError
	for i, err := range all() {
		if !errors.As(err, &ie) || !strings.HasPrefix(ie.Hint(), "keyfob login p") {
			t.Fatal(i, err)
		}
	}
	keys, _, err := b.Chain(request("p1"))
	if err != nil {
		t.Fatal(err)
	}
	person := &tabs{t: t}
	defer queue.Attach(keys, person)()

	w.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInDeny)
	b.Wake("")
	for i, err := range all() {
		if !errors.As(err, &ie) {
			t.Error(i, err)
		}
	}
	if got := person.n.Load(); got != 1 {
		t.Errorf("%d tabs for one refusal", got)
	}
	w.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInAuto)
	for _, k := range keys {
		queue.Reset(k)
	}
	b.Wake("")
	began := time.Now()
	for i, err := range all() {
		if err != nil {
			t.Error(i, err)
		}
	}
	if got, calls := person.n.Load(), w.aws.Count("OIDCToken"); got != 2 || calls != 1 {
		t.Errorf("%d tabs, %d calls of the token endpoint, want 2 and 1", got, calls)
	}
	t.Logf("a hundred profiles after %v", time.Since(began))
}

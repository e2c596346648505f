package sso

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/broker"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/internal/interact"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

type sources struct{ d Deps }

func (s sources) For(l profiles.Link) (cred.Source, error) { return New(l, s.d) }

// browserPerson is a person at the Queue.
type browserPerson struct {
	t       *testing.T
	prompts atomic.Int32
}

func (b *browserPerson) Prompt(ctx context.Context, p interact.Pending) (cred.Secret, error) {
	b.prompts.Add(1)
	time.Sleep(50 * time.Millisecond) // the others come meanwhile
	fakeawstest.NewBrowser(b.t, true).Open(p.Question.URL)
	<-ctx.Done()
	return cred.Secret{}, ctx.Err()
}

// TestThroughTheBroker: a hundred profiles of a config file over one
// sign-in, with the real broker and queue; more than the broker lets in at a
// time.
func TestThroughTheBroker(t *testing.T) {
	spec := people()
	config := fmt.Sprintf("[sso-session corp]\nsso_start_url = %s\nsso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n", startURL)
	for i := range 100 {
		spec.Accounts[0].Roles = append(spec.Accounts[0].Roles, fakeaws.SSORole{Name: fmt.Sprint("R", i)})
		config += fmt.Sprintf("[profile p%d]\nsso_session = corp\nsso_account_id = %s\nsso_role_name = R%d\n", i, dev, i)
	}
	w := newWorld(t, spec)
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := access.NewRules(access.RulesConfig{Owner: peer.Self()})
	if err != nil {
		t.Fatal(err)
	}
	queue := interact.NewQueue(interact.Config{})
	b := broker.New(broker.Config{Sources: sources{w.deps}, Store: w.vault, Asker: queue, Rules: rules, Log: w.deps.Log, SigninTimeout: 20 * time.Second})
	b.SetProfiles(profiles.Load(profiles.Input{ConfigFile: file, Env: map[string]string{"AWS_ENDPOINT_URL": w.url}}))
	ctx, cancel := context.WithCancel(context.Background())
	var running, wg sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	defer running.Wait()
	defer cancel()

	get := func(profile string) error {
		_, err := b.Get(ctx, cred.Request{Caller: peer.Caller{UID: peer.Self(), Via: "unix"}, Profile: profile, MayAsk: true, Via: cred.Endpoint{Kind: cred.ViaExec}})
		return err
	}
	key, _, err := b.Chain(cred.Request{Caller: peer.Caller{UID: peer.Self()}, Profile: "p1", Via: cred.Endpoint{Kind: cred.ViaLogin}})
	if err != nil {
		t.Fatal(err)
	}
	someone := &browserPerson{t: t}
	defer queue.Attach(key, someone)()

	// Refused: it cools down, until somebody comes to log in.
	w.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInDeny)
	interactionError(t, get("p1"), "refused in the browser")
	var e *cred.InteractionError
	if err := get("p2"); !errors.As(err, &e) || !strings.Contains(err.Error(), "asked again in") || someone.prompts.Load() != 1 {
		t.Errorf("after a refusal: %v, %d prompts", err, someone.prompts.Load())
	}
	w.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInAuto)
	for _, k := range key {
		queue.Reset(k)
	}
	b.Wake("")
	w.aws.ResetCalls()

	for i := range 100 {
		wg.Go(func() {
			if err := get(fmt.Sprint("p", i)); err != nil {
				t.Error(i, err)
			}
		})
	}
	wg.Wait()
	if n := someone.prompts.Load(); n != 2 {
		t.Errorf("%d prompts, want one more", n)
	}
	w.count("CreateToken", 1, "GetRoleCredentials", 100)
	w.noSecrets(nil)
}

package login

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
	"keyfob/internal/interact"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

type kinds struct{ d Deps }

func (k kinds) For(l profiles.Link) (cred.Source, error) { return New(l, k.d) }

// atQueue is a person with a browser at the Queue.
type atQueue struct {
	w       *world
	prompts atomic.Int32
}

func (p *atQueue) Prompt(ctx context.Context, q interact.Pending) (cred.Secret, error) {
	p.prompts.Add(1)
	time.Sleep(30 * time.Millisecond) // the others come meanwhile
	s, err := p.w.ask.signsIn(ctx, q.Question)
	return cred.NewSecret(s), err
}

// TestThroughTheBroker: profiles of ten regions on one sign-in, with the real
// broker and queue.
func TestThroughTheBroker(t *testing.T) {
	w := newWorld(t)
	config := ""
	for i := range 10 {
		config += fmt.Sprintf("[profile p%d]\nlogin_session = %s\nregion = eu-west-%d\n", i, alice, i+1)
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := access.NewRules(access.RulesConfig{Owner: peer.Self()})
	if err != nil {
		t.Fatal(err)
	}
	queue := interact.NewQueue(interact.Config{})
	b := broker.New(broker.Config{Sources: kinds{w.deps}, Store: w.store, Asker: queue, Rules: rules, Log: w.deps.Log, SigninTimeout: 20 * time.Second})
	b.SetProfiles(profiles.Load(profiles.Input{ConfigFile: file, Env: map[string]string{"AWS_ENDPOINT_URL_SIGNIN": w.url}}))
	ctx, cancel := context.WithCancel(context.Background())
	var running, wg sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	defer running.Wait()
	defer cancel()

	request := func(profile string, how *cred.Signin) cred.Request {
		return cred.Request{Caller: peer.Caller{UID: peer.Self(), Via: "unix"}, Profile: profile, MayAsk: true, Via: cred.Endpoint{Kind: cred.ViaLogin}, Signin: how}
	}
	get := func(profile string) error { _, err := b.Get(ctx, request(profile, nil)); return err }
	var ie *cred.InteractionError
	if err := get("p0"); !errors.As(err, &ie) || ie.Hint() != "keyfob login p0" || !strings.Contains(err.Error(), "nobody has signed in as "+alice) {
		t.Fatal(err)
	}
	keys, _, err := b.Chain(request("p1", nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		queue.Cancel(k) // the question that stands there has a page of its own, which is closed
	}
	person := &atQueue{w: w}
	defer queue.Attach(keys, person)()

	w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInDeny)
	if err := get("p1"); !errors.As(err, &ie) || !strings.Contains(err.Error(), "refused in the browser") {
		t.Fatal(err)
	}
	if err := get("p2"); !errors.As(err, &ie) || !strings.Contains(err.Error(), "asked again in") || person.prompts.Load() != 1 {
		t.Errorf("after a refusal: %v, %d prompts", err, person.prompts.Load())
	}

	w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInAuto)
	for _, k := range keys {
		queue.Reset(k)
		queue.Cancel(k)
	}
	b.Wake("")
	for i := range 50 {
		wg.Go(func() {
			if err := get(fmt.Sprint("p", i%10)); err != nil {
				t.Error(i, err)
			}
		})
	}
	wg.Wait()
	if person.prompts.Load() != 2 || w.calls() != 1 {
		t.Errorf("%d prompts, %d calls", person.prompts.Load(), w.calls())
	}

	// `keyfob login p1` with a session that lasts, and with --force.
	before, _ := b.Peek("p1")
	snap, err := b.Fresh(ctx, request("p1", nil))
	if err != nil || snap.AccessKeyID != before.AccessKeyID || person.prompts.Load() != 2 || w.calls() != 1 {
		t.Errorf("%v, %d prompts, %d calls", err, person.prompts.Load(), w.calls())
	}
	for _, k := range keys {
		w.deps.Sessions.Renew(k)
	}
	if snap, err = b.Refresh(ctx, request("p1", nil)); err != nil || snap.AccessKeyID == before.AccessKeyID || person.prompts.Load() != 3 {
		t.Errorf("%v, %d prompts", err, person.prompts.Load())
	}

	if err := errors.Join(b.Forget(ctx, "p1"), w.logout()); err != nil {
		t.Fatal(err)
	}
	r := request("p1", nil)
	r.MayAsk = false
	calls := w.calls()
	for _, k := range keys {
		queue.Cancel(k)
	}
	w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInDeny)
	if _, err := b.Get(ctx, r); !errors.As(err, &ie) || w.calls() != calls {
		t.Errorf("after a logout: %v", err)
	}
	w.noSecrets(nil)
}

// TestNobodyComes: for a profile that names nobody, as for any other, the end
// of the time limit is a person's affair, in the browser and with a code to
// paste, whichever limit is the first to pass: the caller's or the Queue's.
func TestNobodyComes(t *testing.T) {
	for _, arn := range []string{"", alice} {
		for _, how := range []*cred.Signin{{}, {Remote: true}, {Device: true}} {
			for _, limits := range [][2]time.Duration{{20 * time.Millisecond, time.Minute}, {time.Minute, 20 * time.Millisecond}} {
				w := newWorld(t)
				queue := interact.NewQueue(interact.Config{Expiry: limits[1]})
				s := w.source(arn)
				detach := queue.Attach([]cred.LinkKey{s.AskKey()}, never{})
				ctx, cancel := context.WithTimeout(t.Context(), limits[0])
				_, err := s.Fetch(ctx, cred.Input{Profile: "asked", Ask: queue, Signin: how})
				cancel()
				needsPerson(t, err, "cannot get credentials for asked: nobody")
				detach()
			}
		}
	}
}

// never is a person who does not answer.
type never struct{}

func (never) Prompt(ctx context.Context, _ interact.Pending) (cred.Secret, error) {
	<-ctx.Done()
	return cred.Secret{}, ctx.Err()
}

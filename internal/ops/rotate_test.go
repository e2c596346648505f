package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// machine is a vault and an AWS, and a process between them that can be
// killed before and after any of its effects on either.
type machine struct {
	*world
	mu      sync.Mutex // guards what follows
	records map[string]string
	pairs   map[string]Pair
	effects int // requests and writes so far, each counted before and after
	killAt  int // 0 for never
	dead    bool
	kill    context.CancelFunc
	fullAt  int // the write of that number fails, 0 for none
	writes  int
	notices []string
	session func(context.Context, string) (cred.Credentials, error)
}

var errDead = errors.New("the process was killed")

// effect says whether the process still lives at the next effect.
func (m *machine) effect() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.effects++
	if m.effects == m.killAt {
		m.dead = true
		m.kill()
	}
	if m.dead {
		return errDead
	}
	return nil
}

// around is one effect.
func (m *machine) around(do func() error) error {
	if err := m.effect(); err != nil {
		return err
	}
	m.mu.Lock()
	err := do()
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.effect()
}

func (m *machine) write(do func()) error {
	return m.around(func() error {
		if m.writes++; m.writes == m.fullAt {
			return errors.New("no space left on device")
		}
		do()
		return nil
	})
}

func (m *machine) Get(_ context.Context, name string) (cred.Secret, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.records[name]
	if !ok {
		return cred.Secret{}, cred.ErrNotFound
	}
	return cred.NewSecret(v), nil
}

func (m *machine) Put(_ context.Context, name string, value cred.Secret) error {
	return m.write(func() { m.records[name] = value.Reveal() })
}

func (m *machine) Delete(_ context.Context, name string) error {
	return m.around(func() error {
		if _, ok := m.records[name]; !ok {
			return cred.ErrNotFound
		}
		delete(m.records, name)
		return nil
	})
}

func (m *machine) List(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := sortedKeys(m.records)
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) }), nil
}

func (m *machine) Pairs(context.Context) (map[string]Pair, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.pairs), nil
}

func (m *machine) Replace(_ context.Context, profile, old string, p Pair) error {
	return m.write(func() {
		if m.pairs[profile].AccessKeyID == old {
			m.pairs[profile] = p
		}
	})
}

// newMachine makes a machine with alice's keys in the vault for dev and prod,
// and bob's for other. It works in a bubble of synctest, so that waiting costs
// nothing.
func newMachine(t *testing.T, alice fakeaws.UserSpec) *machine {
	m := &machine{records: map[string]string{}, pairs: map[string]Pair{}, kill: func() {}}
	upstream := fakeaws.New()
	l := pipes(make(chan net.Conn))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.effect() != nil {
			panic(http.ErrAbortHandler)
		}
		rec := httptest.NewRecorder()
		upstream.Handler().ServeHTTP(rec, r)
		if m.effect() != nil {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }, Dial: l.dial})
	t.Cleanup(func() {
		p.CloseIdle()
		_ = server.Close()
		<-done
	})
	m.world = &world{t: t, aws: upstream, url: "http://fake.example", logs: new(bytes.Buffer)}
	log := logrus.New()
	log.SetOutput(m.logs)
	log.SetLevel(logrus.TraceLevel)
	m.deps = Deps{Pool: p, Log: logrus.NewEntry(log)}
	upstream.SetClock(-400 * day)
	m.addUser(fakeaws.UserSpec{Name: "bob"})
	m.pairs["other"] = Pair{Credentials: m.keys}
	m.addUser(alice)
	upstream.SetClock(0)
	m.pairs["dev"], m.pairs["prod"] = Pair{Credentials: m.keys}, Pair{Credentials: m.keys}
	return m
}

func (m *machine) rotation() Rotation {
	return Rotation{Keys: m, Journal: m, Session: m.session,
		Client: func(string) (profiles.Client, error) { return m.client(), nil },
		Notice: func(line string) { m.notices = append(m.notices, line) }}
}

// rotate is one run of the command.
func (m *machine) rotate(profile string, due time.Duration) (Rotated, error) {
	m.t.Helper()
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	m.mu.Lock()
	m.kill, m.notices = cancel, nil
	m.mu.Unlock()
	r := m.rotation()
	r.Due = due
	out, err := m.deps.Rotate(ctx, r, profile)
	synctest.Wait() // for requests that were cut off
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pairs {
		m.keep(p.Credentials)
	}
	for _, s := range m.records { // journals hold secrets that no pair has yet
		if i := strings.LastIndex(s, `"secret_access_key":"`); i >= 0 {
			m.secrets = append(m.secrets, s[i+21:i+61])
		}
	}
	m.noSecrets(err, append(slices.Clone(m.notices), fmt.Sprintf("%+v", out))...)
	return out, err
}

// again is a new process after a kill.
func (m *machine) again() {
	synctest.Wait()
	m.mu.Lock()
	m.dead, m.killAt, m.fullAt = false, 0, 0
	m.mu.Unlock()
	m.deps.Pool.CloseIdle()
}

// keysOf are the ids of the keys that alice has at AWS, asked by one that
// works. The signature itself counts as a use.
func (m *machine) keysOf(by cred.Credentials) []string {
	m.t.Helper()
	x := &rotating{Deps: m.deps, client: m.client(), out: &Rotated{}}
	x.j.User = "arn:aws:iam::111122223333:user/alice"
	keys, err := x.list(m.t.Context(), by)
	if err != nil {
		m.t.Fatalf("what the vault has does not work: %v", err)
	}
	var ids []string
	for _, k := range keys {
		ids = append(ids, *k.AccessKeyId+" "+string(k.Status))
	}
	return ids
}

// whole says that the rotation is through: one new pair that works, in the
// vault for all that had the old one, nothing else at AWS, nobody else
// touched.
func (m *machine) whole(old string) {
	m.t.Helper()
	dev := m.pairs["dev"].Credentials
	if dev.AccessKeyID == old || m.pairs["prod"].AccessKeyID != dev.AccessKeyID || !m.pairs["prod"].SecretAccessKey.Equal(dev.SecretAccessKey) {
		m.t.Errorf("the vault has %s and %s, the old one was %s", dev.AccessKeyID, m.pairs["prod"].AccessKeyID, old)
	}
	if ids := m.keysOf(dev); !slices.Equal(ids, []string{dev.AccessKeyID + " Active"}) {
		m.t.Errorf("at AWS there are %q", ids)
	}
	if len(m.records) != 0 {
		m.t.Errorf("left over: %q", sortedKeys(m.records))
	}
	if bob := m.pairs["other"]; m.works(bob.Credentials) != nil {
		m.t.Error("bob's keys no longer work")
	}
}

func (m *machine) works(c cred.Credentials) error {
	x := &rotating{Deps: m.deps, client: m.client(), out: &Rotated{}}
	_, err := x.identity(m.t.Context(), c)
	return err
}

func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{})
		m.aws.SetKeyDelay(25 * time.Second)
		old := m.keys.AccessKeyID
		begun := time.Now()
		out, err := m.rotate("prod", 0)
		if err != nil {
			t.Fatal(err)
		}
		m.whole(old)
		if out.Profile != "prod" || !slices.Equal(out.Also, []string{"dev"}) || out.User != "arn:aws:iam::111122223333:user/alice" ||
			out.Old != old || out.New != m.pairs["dev"].AccessKeyID || out.Resumed || out.Skipped != "" {
			t.Errorf("%+v", out)
		}
		if d := time.Since(begun); d < 25*time.Second || d > 40*time.Second {
			t.Errorf("it took %s until AWS knew the key", d)
		}
		said := strings.Join(m.notices, "\n")
		for _, want := range []string{"made the access key " + out.New + " for user alice", "waiting for AWS", "stored the new keys of prod and 1 more", "deactivated the access key " + old,
			"deleted the access key " + old + "; sessions that it made stay valid until they end"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not said in\n%s", want, said)
			}
		}
		if added := m.pairs["dev"].Added; time.Since(added) > time.Minute {
			t.Errorf("added %s", added)
		}
		// The old key was taken away by the new one alone.
		for _, c := range m.aws.Calls("UpdateAccessKey", "DeleteAccessKey") {
			if c.AccessKey != out.New || c.Params["AccessKeyId"] != old || c.Params["UserName"] != "alice" {
				t.Errorf("%+v", c)
			}
		}
		if u := m.aws.Calls("UpdateAccessKey"); len(u) != 1 || m.aws.Calls("DeleteAccessKey")[0].Time.Before(u[0].Time) {
			t.Errorf("%+v", u)
		}
		if !strings.Contains(m.logs.String(), old) || !strings.Contains(m.logs.String(), "made the access key") {
			t.Error("the log does not tell of it")
		}
	})
}

// TestKilledAnywhere kills the process before and after each of its effects
// on AWS and on the vault. What the vault has works at every such moment, and
// the next run finishes.
func TestKilledAnywhere(t *testing.T) {
	for delay, later := range map[time.Duration]time.Duration{0: 0, time.Second: time.Hour, 10 * time.Second: 0} {
		for at := 1; ; at++ {
			var survived bool
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t, fakeaws.UserSpec{})
				m.aws.SetKeyDelay(delay) // until a new key works
				old := m.keys.AccessKeyID
				m.killAt = at
				_, err := m.rotate("dev", 0)
				survived = !m.dead
				if survived {
					if err != nil {
						t.Fatal(err)
					}
					m.again()
					m.whole(old)
					return
				}
				if err == nil && len(m.records) != 0 {
					t.Errorf("killed at %d: it says that all is well", at)
				}
				m.again()
				for _, profile := range []string{"dev", "prod"} {
					if err := m.works(m.pairs[profile].Credentials); err != nil {
						t.Errorf("killed at %d, %s is locked out: %v", at, profile, err)
					}
				}
				time.Sleep(later)
				out, err := m.rotate("dev", 0)
				if err != nil {
					t.Fatalf("killed at %d, resumed after %s: %v", at, later, err)
				}
				if m.pairs["dev"].AccessKeyID == old || out.New != m.pairs["dev"].AccessKeyID {
					t.Errorf("killed at %d: %+v", at, out)
				}
				m.whole(m.keys.AccessKeyID)
			})
			if survived {
				if at < 25 {
					t.Errorf("a rotation has only %d effects", at)
				}
				t.Logf("new keys work after %s, resumed after %s: killed at %d places", delay, later, at-1)
				break
			}
			if t.Failed() {
				return
			}
		}
	}
}

// TestKilledTwice: also the run that finishes may be killed anywhere.
func TestKilledTwice(t *testing.T) {
	for first := 1; ; first += 3 {
		over := false
		for second := 1; ; second += 2 {
			var survived bool
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t, fakeaws.UserSpec{})
				old := m.keys.AccessKeyID
				m.killAt = first
				if _, err := m.rotate("dev", 0); !m.dead {
					over = true
					if err != nil {
						t.Error(err)
					}
					return
				}
				m.again()
				m.effects, m.killAt = 0, second
				_, _ = m.rotate("prod", 0)
				survived = !m.dead
				m.again()
				if err := errors.Join(m.works(m.pairs["dev"].Credentials), m.works(m.pairs["prod"].Credentials)); err != nil {
					t.Fatalf("killed at %d and %d: %v", first, second, err)
				}
				if len(m.records) > 0 || m.pairs["dev"].AccessKeyID == old {
					if _, err := m.rotate("prod", 0); err != nil {
						t.Fatalf("killed at %d and %d: %v", first, second, err)
					}
				}
				m.whole(old)
			})
			if survived || over || t.Failed() {
				break
			}
		}
		if over || t.Failed() {
			return
		}
	}
}

// TestNoAnswer: each kind of trouble at each call of AWS, once and for ever.
// What the vault has works all the while, and the rotation ends well, in the
// same run or in the next.
func TestNoAnswer(t *testing.T) {
	for _, action := range []string{"GetCallerIdentity", "ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey"} {
		for _, kind := range []fakeaws.Kind{fakeaws.Drop, fakeaws.Late, fakeaws.Half, fakeaws.Fail500, fakeaws.Throttle, fakeaws.Garbage, fakeaws.Empty, fakeaws.Hang} {
			for _, fault := range []fakeaws.Fault{{Count: 1}, {After: 1, Count: 1}, {After: 1}, {}} {
				fault.Kind, fault.Action = kind, action
				synctest.Test(t, func(t *testing.T) {
					m := newMachine(t, fakeaws.UserSpec{})
					old := m.keys.AccessKeyID
					m.aws.SetFaults(fault)
					_, err := m.rotate("dev", 0)
					m.aws.SetFaults()
					for _, profile := range []string{"dev", "prod"} {
						if werr := m.works(m.pairs[profile].Credentials); werr != nil {
							t.Errorf("%+v: %s is locked out: %v", fault, profile, werr)
						}
					}
					if err != nil {
						line(t, err)
						time.Sleep(time.Minute)
						if _, err = m.rotate("dev", 0); err != nil {
							t.Errorf("%+v: %v", fault, err)
						}
					}
					m.whole(old)
				})
			}
		}
	}
}

// TestFullDisk: each write fails once.
func TestFullDisk(t *testing.T) {
	for at := 1; ; at++ {
		var through bool
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(t, fakeaws.UserSpec{})
			old := m.keys.AccessKeyID
			m.fullAt = at
			_, err := m.rotate("dev", 0)
			if through = m.writes < at; through {
				m.whole(old)
				return
			}
			if err == nil || !strings.Contains(err.Error(), "no space left") {
				t.Fatalf("write %d: %v", at, err)
			}
			m.again()
			if err := errors.Join(m.works(m.pairs["dev"].Credentials), m.works(m.pairs["prod"].Credentials)); err != nil {
				t.Errorf("write %d: %v", at, err)
			}
			if _, err := m.rotate("dev", 0); err != nil {
				t.Errorf("write %d: %v", at, err)
			}
			m.whole(old)
		})
		if through {
			if at < 4 {
				t.Errorf("only %d writes", at)
			}
			return
		}
	}
}

// second makes another key of alice, as she would in the console.
func (m *machine) second(by cred.Credentials) cred.Credentials {
	m.t.Helper()
	x := &rotating{Deps: m.deps, Rotation: m.rotation(), client: m.client(), out: &Rotated{}}
	x.j = journal{User: "arn:aws:iam::111122223333:user/alice", Old: journaledPair(Pair{Credentials: by})}
	if err := x.create(m.t.Context(), nil); err != nil {
		m.t.Fatal(err)
	}
	delete(m.records, x.j.record())
	m.secrets = append(m.secrets, x.j.New.Secret)
	return x.j.New.pair().Credentials
}

// TestTwoKeys: a key that is not ours is never deleted, and the refusal says
// which one stands in the way.
func TestTwoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{})
		other := m.second(m.keys)
		m.aws.ResetCalls()
		_, err := m.rotate("dev", 0)
		line(t, err, "cannot rotate the keys of dev: user alice has two access keys, which is all that IAM allows: "+m.keys.AccessKeyID+", and "+other.AccessKeyID+", which was never used",
			"aws iam delete-access-key --user-name alice --access-key-id "+other.AccessKeyID)
		if err := m.works(other); err != nil {
			t.Fatal(err)
		}
		_, err = m.rotate("dev", 0)
		line(t, err, other.AccessKeyID+", which was last used on 2000-01-01 (sts in eu-west-1)")
		m.pairs["shared"] = Pair{Credentials: other}
		_, err = m.rotate("dev", 0)
		line(t, err, other.AccessKeyID+", which profile shared has", "keyfob remove shared")
		if n := len(m.aws.Calls("CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey")); n != 0 || len(m.records) != 0 {
			t.Errorf("%d calls, left over %q", n, sortedKeys(m.records))
		}
	})
}

// TestLostKeyIsToldFromOthers: after a kill between AWS's answer and the
// journal only the key that the rotation made is deleted: not one that
// somebody made at another time, nor one that was used.
func TestLostKeyIsToldFromOthers(t *testing.T) {
	for name, c := range map[string]struct {
		use   bool
		later time.Duration
	}{"used meanwhile": {use: true}, "made later": {later: time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(t, fakeaws.UserSpec{})
			m.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Drop, Action: "CreateAccessKey"})
			if _, err := m.rotate("dev", 0); err == nil || len(m.records) != 1 {
				t.Fatalf("%s: %v", name, err)
			}
			m.aws.SetFaults()
			kept := maps.Clone(m.records)
			time.Sleep(c.later)
			other := m.second(m.keys)
			m.records = kept
			if c.use {
				if err := m.works(other); err != nil {
					t.Fatal(err)
				}
			}
			m.aws.ResetCalls()
			_, err := m.rotate("dev", 0)
			line(t, err, "user alice has two access keys", other.AccessKeyID)
			if n := len(m.aws.Calls("DeleteAccessKey")); n != 0 {
				t.Errorf("%s: a key that is not ours was deleted", name)
			}
		})
	}
	// What nobody can tell stays.
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{Deny: []string{"iam:GetAccessKeyLastUsed"}})
		m.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Late, Action: "CreateAccessKey", Count: 1})
		_, err := m.rotate("dev", 0)
		line(t, err, "cannot tell whether the access key AKIA")
		_, err = m.rotate("dev", 0)
		line(t, err, "cannot tell whether the access key AKIA", "is one that an earlier rotation made and lost", "delete-access-key --user-name alice")
		if n := len(m.aws.Calls("DeleteAccessKey")); n != 0 {
			t.Error("it was deleted all the same")
		}
	})
}

func TestDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{})
		old := m.keys.AccessKeyID
		out, err := m.rotate("dev", 401*day)
		if err != nil || !strings.HasPrefix(out.Skipped, "not due: it was made on ") || !strings.HasSuffix(out.Skipped, ", 400 days ago") || m.pairs["dev"].AccessKeyID != old || len(m.records) != 0 {
			t.Fatalf("%+v %v", out, err)
		}
		// A rotation that was broken off is finished however young its key is.
		m.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Drop, Action: "UpdateAccessKey"})
		if _, err := m.rotate("dev", 399*day); err == nil {
			t.Fatal("no error")
		} else {
			line(t, err, "the vault has the new key, "+m.pairs["dev"].AccessKeyID+", which works, and `keyfob rotate dev` goes on")
		}
		m.aws.SetFaults()
		if out, err = m.rotate("prod", 399*day); err != nil || !out.Resumed || out.Skipped != "" {
			t.Errorf("%+v %v", out, err)
		}
		m.whole(old)
		if out, err = m.rotate("dev", day); err != nil || out.Skipped == "" {
			t.Errorf("%+v %v", out, err)
		}

		// The vault's date counts where AWS does not tell.
		m = newMachine(t, fakeaws.UserSpec{Deny: []string{"iam:*"}})
		p := m.pairs["dev"]
		p.Added = time.Now().Add(-20 * day)
		m.pairs["dev"] = p
		if out, err = m.rotate("dev", 30*day); err != nil || !strings.Contains(out.Skipped, "20 days ago") {
			t.Errorf("%+v %v", out, err)
		}
		_, err = m.rotate("dev", 10*day)
		line(t, err, "cannot list the access keys of user alice", "AccessDenied", "keyfob policy identity dev")
	})
}

// TestPolicyWantsCode: bare keys may do nothing in IAM; a session with a code
// may, and is asked for once.
func TestPolicyWantsCode(t *testing.T) {
	const serial = "arn:aws:iam::111122223333:mfa/alice"
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{Serial: serial}}})
		upstream := m.aws
		bare := func(id string) bool { return strings.HasPrefix(id, "AKIA") }
		refused := 0
		m.deps.Pool = m.guarded(t, func(action, key string) bool {
			no := bare(key) && strings.HasSuffix(action, "AccessKeys") || bare(key) && strings.HasSuffix(action, "AccessKey")
			if no {
				refused++
			}
			return no
		})
		old := m.keys.AccessKeyID
		_, err := m.rotate("dev", 0)
		line(t, err, "cannot list the access keys of user alice", "AccessDenied", "set mfa_serial")

		asked := 0
		m.session = func(ctx context.Context, profile string) (cred.Credentials, error) {
			asked++
			l := m.link(profiles.KindSessionToken, "mfa_serial", serial)
			src, err := sts.New(l, sts.Deps{Pool: m.deps.Pool})
			if err != nil {
				return cred.Credentials{}, err
			}
			c, err := src.Fetch(ctx, cred.Input{Profile: profile, Base: m.pairs[profile].Credentials, Ask: m})
			m.keep(c)
			return c, err
		}
		if _, err := m.rotate("dev", 0); err != nil {
			t.Fatal(err)
		}
		if asked != 1 || refused == 0 {
			t.Errorf("asked %d times, refused %d calls", asked, refused)
		}
		for _, c := range upstream.Calls("CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey") {
			if bare(c.AccessKey) {
				t.Errorf("%+v", c)
			}
		}
		if dev := m.pairs["dev"].AccessKeyID; dev == old || m.pairs["prod"].AccessKeyID != dev || len(m.records) != 0 || m.works(m.pairs["dev"].Credentials) != nil {
			t.Errorf("%s, %q", dev, sortedKeys(m.records))
		}

		// Who can't be asked changes nothing.
		m.session = func(context.Context, string) (cred.Credentials, error) {
			return cred.Credentials{}, &cred.InteractionError{Kind: cred.AskMFA, Profile: "dev"}
		}
		var person *cred.InteractionError
		if _, err := m.rotate("dev", 0); !errors.As(err, &person) || len(m.records) != 0 {
			t.Errorf("%v, left over %q", err, sortedKeys(m.records))
		}
	})
}

// guarded is a pool whose requests of IAM are refused as a policy would.
func (m *machine) guarded(t *testing.T, refuse func(action, key string) bool) *awsclient.Pool {
	l := pipes(make(chan net.Conn))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(r.Body)
		form, _ := url.ParseQuery(body.String())
		_, key, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		key, _, _ = strings.Cut(key, "/")
		if refuse(form.Get("Action"), key) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>with an explicit deny in an identity-based policy</Message></Error></ErrorResponse>`)
			return
		}
		r.Body = http.NoBody
		r2 := r.Clone(r.Context())
		r2.Body = readCloser{body}
		m.aws.Handler().ServeHTTP(rec, r2)
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }, Dial: l.dial})
	t.Cleanup(func() {
		p.CloseIdle()
		_ = server.Close()
		<-done
	})
	return p
}

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }

// TestNewKeyDeletedByOthers: the old pair, which the journal kept, comes back.
func TestNewKeyDeletedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{})
		old := m.keys
		m.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Drop, Action: "UpdateAccessKey"})
		_, _ = m.rotate("dev", 0)
		m.aws.SetFaults()
		lost := m.pairs["dev"].AccessKeyID
		x := &rotating{Deps: m.deps, Rotation: m.rotation(), client: m.client(), out: &Rotated{}}
		x.j.User = "arn:aws:iam::111122223333:user/alice"
		if err := x.delete(t.Context(), old, lost); err != nil || lost == old.AccessKeyID {
			t.Fatal(lost, err)
		}
		time.Sleep(time.Hour)
		out, err := m.rotate("dev", 0)
		if err != nil || out.New == lost {
			t.Fatalf("%+v %v", out, err)
		}
		m.whole(old.AccessKeyID)
	})
}

// TestOrphans: what a rotation made for profiles that were removed meanwhile
// is cleared away; the old key, which somebody may still use, is not touched.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{})
		m.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Drop, Action: "UpdateAccessKey"})
		_, _ = m.rotate("dev", 0)
		m.aws.SetFaults()
		delete(m.pairs, "dev")
		delete(m.pairs, "prod")
		pairs, orphans, err := m.deps.Rotatable(t.Context(), m.rotation())
		if err != nil || !slices.Equal(pairs, []string{"other"}) || !slices.Equal(orphans, []string{"dev"}) {
			t.Fatalf("%q %q %v", pairs, orphans, err)
		}
		out, err := m.rotate("dev", 0)
		if err != nil || len(out.Warnings) != 1 || !strings.Contains(out.Warnings[0], m.keys.AccessKeyID+" is left at AWS as it is") {
			t.Errorf("%+v %v", out, err)
		}
		if ids := m.keysOf(m.keys); !slices.Equal(ids, []string{m.keys.AccessKeyID + " Active"}) || len(m.records) != 0 {
			t.Errorf("%q, left over %q", ids, sortedKeys(m.records))
		}
		_, err = m.rotate("dev", 0)
		line(t, err, "cannot rotate the keys of dev: there is no key pair in the vault", "keyfob add dev")
		if !errors.Is(err, ErrNoPair) {
			t.Error(err)
		}
	})
}

// TestNotRotated: keys that are none of an IAM user's, or that AWS does not
// know.
func TestNotRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, fakeaws.UserSpec{Root: true})
		_, err := m.rotate("dev", 0)
		line(t, err, "cannot rotate the keys of dev: they are those of arn:aws:iam::111122223333:root, which is no IAM user")
		p := m.pairs["dev"]
		p.AccessKeyID = "AKIAIOSFODNN7EXAMPLE"
		m.pairs["dev"] = p
		_, err = m.rotate("dev", 0)
		line(t, err, "InvalidClientTokenId", "keyfob add --force dev")
		if n := len(m.aws.Calls("CreateAccessKey")); n != 0 || len(m.records) != 0 {
			t.Errorf("%d keys were made", n)
		}
		// Whose the new key is must be sure before the old one is touched.
		m = newMachine(t, fakeaws.UserSpec{})
		m.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.WrongAccount, Action: "GetCallerIdentity", After: 1})
		_, err = m.rotate("dev", 0)
		line(t, err, "cannot use the new access key", "the vault still has the old key")
		if n := len(m.aws.Calls("UpdateAccessKey", "DeleteAccessKey")); n != 0 || m.pairs["dev"].AccessKeyID != m.keys.AccessKeyID {
			t.Error("the old key was touched")
		}
	})
}

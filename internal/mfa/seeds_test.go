package mfa

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

func expect(t *testing.T, what string, got cred.Secret, at time.Time) {
	t.Helper()
	want, err := fakeaws.Code(seedText, at)
	if err != nil {
		t.Fatal(err)
	}
	if got.Reveal() != want {
		t.Errorf("%s: not the code of %s", what, at)
	}
}

func TestEachCodeIsGivenOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		start := time.Now()
		codes := w.add(t, seedText)
		expect(t, "first to enable", codes[0], start.Add(-30*time.Second))
		expect(t, "second to enable", codes[1], start)

		// These count as given, also over a restart.
		w.again()
		c, err := w.Ask(t.Context(), cred.LinkKey{1}, question)
		if err != nil || time.Since(start) != 30*time.Second {
			t.Fatalf("%v after %s", err, time.Since(start))
		}
		expect(t, "asked", c, start.Add(30*time.Second))

		time.Sleep(45 * time.Second) // into a step of which nothing was given
		began := time.Now()
		c, err = w.Ask(t.Context(), cred.LinkKey{1}, question)
		if err != nil || time.Since(began) != 0 {
			t.Fatalf("%v after %s", err, time.Since(began))
		}
		expect(t, "later", c, began)
		w.again()
		c, err = w.Ask(t.Context(), cred.LinkKey{1}, question)
		if err != nil || time.Since(began) == 0 {
			t.Fatalf("%v after %s", err, time.Since(began))
		}
		expect(t, "after a restart", c, time.Now())
		if w.person.times() != 0 {
			t.Error("a person was asked")
		}

		// Many at once get one each, in a step each.
		began = time.Now()
		var mu sync.Mutex
		var got []string
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				c, err := w.Code(t.Context(), serial)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, c.Code.Reveal())
				if !c.Ends.After(time.Now()) || time.Until(c.Ends) > 30*time.Second {
					t.Errorf("ends %s", c.Ends)
				}
			})
		}
		wg.Wait()
		slices.Sort(got)
		if len(slices.Compact(got)) != 5 || time.Since(began) > 150*time.Second {
			t.Errorf("%d codes in %s", len(got), time.Since(began))
		}
	})
}

func TestNoTimeForTheNextCode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(t, seedText)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := w.Ask(ctx, cred.LinkKey{1}, question)
		if !errors.Is(err, cred.ErrUnavailable) || !strings.Contains(err.Error(), "the next one comes in 30s") || time.Since(began) != 0 || w.person.times() != 0 {
			t.Errorf("%v", err)
		}
		time.Sleep(6 * time.Second) // and now there is
		if _, err := w.Ask(ctx, cred.LinkKey{1}, question); !errors.Is(err, cred.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		long, cancel2 := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel2()
		if _, err := w.Ask(long, cred.LinkKey{1}, question); err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := w.Code(ctx, serial); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

func TestCodesAreThoseOfAWSsClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		skew := 10 * time.Minute
		w.deps.Skew = func() time.Duration { return skew }
		w.again()
		codes := w.add(t, seedText)
		expect(t, "ahead", codes[1], time.Now().Add(skew))
		// The last code's step is far ahead of a clock that was wrong.
		skew = 0
		began := time.Now()
		c, err := w.Code(t.Context(), serial)
		if err != nil || time.Since(began) > time.Minute {
			t.Fatalf("%v after %s", err, time.Since(began))
		}
		expect(t, "set right", c.Code, time.Now())
	})
}

func TestStoreOfSeeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx := t.Context()
		if d, err := w.List(ctx); err != nil || len(d) != 0 || d == nil {
			t.Errorf("%v %v", d, err)
		}
		if w.Unattended(serial, "") {
			t.Error("a seed is there before it was added")
		}
		if err := w.Remove(ctx, serial); !errors.Is(err, cred.ErrNotFound) {
			t.Errorf("%v", err)
		}
		if _, err := w.Code(ctx, serial); !errors.Is(err, cred.ErrNotFound) || !strings.Contains(err.Error(), serial) {
			t.Errorf("%v", err)
		}
		w.add(t, seedText)
		if _, err := w.Add(ctx, serial, cred.NewSecret(strings.Repeat("A", 32)), false); !errors.Is(err, ErrExists) || cred.HintOf(err) != "keyfob mfa remove "+serial {
			t.Errorf("%v", err)
		}
		if !w.Unattended(serial, "") || w.Unattended(serial+"2", "") {
			t.Error("Unattended")
		}
		w.again()
		if !w.Unattended(" "+serial, "") || w.Unattended(serial+"2", "") {
			t.Error("Unattended after a restart")
		}
		if _, err := w.Add(ctx, serial, cred.NewSecret("OTPAUTH://totp/x?secret="+strings.Repeat("A", 32)), true); err != nil {
			t.Error(err)
		}
		if _, err := w.Add(ctx, "arn:aws-us-gov:iam::111122223333:mfa/a/bob", cred.NewSecret(seedText), false); err != nil {
			t.Error(err)
		}
		if err := w.store.Put(ctx, recordPrefix+"00", cred.NewSecret("CANARY")); err != nil {
			t.Fatal(err)
		}
		d, err := w.List(ctx)
		if err != nil || len(d) != 3 || d[0].Serial != "arn:aws-us-gov:iam::111122223333:mfa/a/bob" || d[1].Serial != serial || d[2].Err == nil || strings.Contains(d[2].Err.Error(), "CANARY") {
			t.Errorf("%+v %v", d, err)
		}
		if !d[1].Added.Equal(time.Now().Truncate(time.Second)) || d[1].Used.IsZero() {
			t.Errorf("%+v", d[1])
		}
		if err := w.Remove(ctx, serial); err != nil || w.Unattended(serial, "") {
			t.Errorf("%v", err)
		}
		if names, _ := w.store.List(ctx, ""); len(names) != 2 || strings.Contains(strings.Join(names, " "), "alice") {
			t.Errorf("%v", names)
		}
		for _, s := range []string{"", "alice", "GAHT12345678", "arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:mfa/", serial + " x"} {
			if _, err := w.Add(ctx, s, cred.NewSecret(seedText), false); err == nil || !strings.Contains(err.Error(), "not the ARN of a virtual MFA device") {
				t.Errorf("%q: %v", s, err)
			}
		}
	})
}

func TestAStoreThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.add(t, seedText)
	time.Sleep(0)
	b := &broken{Store: w.store}
	w.deps.Store = b
	w.again()
	b.list = cred.ErrLocked
	if w.Unattended(serial, "") {
		t.Error("known without the list")
	}
	b.list = nil
	if !w.Unattended(serial, "") { // asked anew
		t.Error("not known")
	}
	b.get = cred.ErrLocked
	if _, err := w.Code(t.Context(), serial); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("%v", err)
	}
	if _, err := w.List(t.Context()); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("%v", err)
	}
	if _, err := w.Add(t.Context(), serial, cred.NewSecret(seedText), true); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("%v", err)
	}
	// A person can still be asked, and is told why when there is none.
	w.person.codes = []string{"111111"}
	if c, err := w.Ask(t.Context(), cred.LinkKey{1}, question); err != nil || c.Reveal() != "111111" {
		t.Errorf("%v", err)
	}
	_, err := w.Ask(t.Context(), cred.LinkKey{1}, question)
	var ie *cred.InteractionError
	if !errors.As(err, &ie) || !strings.Contains(err.Error(), "nobody is there") || !strings.Contains(err.Error(), "cannot read the seed") {
		t.Errorf("%v", err)
	}
}

// A full disk costs no code, and none is given twice in one life.
func TestCodeWithoutARecordOfIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(t, seedText)
		w.deps.Store = &broken{Store: w.store, put: errors.New("no space left on device")}
		w.again()
		a, err := w.Code(t.Context(), serial)
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.Code(t.Context(), serial)
		if err != nil || a.Code.Equal(b.Code) {
			t.Errorf("%v", err)
		}
		if !strings.Contains(w.logs.String(), "no space left") || strings.Contains(w.logs.String(), a.Code.Reveal()) {
			t.Error(w.logs)
		}
	})
}

// STS takes what a seed gives, and once.
func TestSTSTakesTheCode(t *testing.T) {
	t.Parallel()
	aws, url := fakeawstest.Start(t)
	seed := fakeaws.NewSeed()
	id, secret := aws.AddUser(fakeaws.UserSpec{Name: "alice", MFA: []fakeaws.MFASpec{{Serial: serial, Seed: seed}}})
	w := newWorld()
	aws.SetClock(time.Hour) // and its clock is another one
	w.deps.Skew = func() time.Duration { return time.Hour }
	w.again()
	// Known from another life, so that no code was given today.
	r, err := encode(record{Version: 1, Serial: serial, Seed: seed, Added: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Put(t.Context(), recordName(serial), r); err != nil {
		t.Fatal(err)
	}
	pool := awsclient.NewPool(awsclient.PoolConfig{})
	t.Cleanup(pool.CloseIdle)
	client := profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": url}}
	pair := cred.Credentials{AccessKeyID: id, SecretAccessKey: cred.NewSecret(secret)}
	_, _ = sts.Deps{Pool: pool}.Identity(t.Context(), client, pair) // tells AWS's clock
	s, err := sts.New(profiles.Link{Kind: profiles.KindSessionToken, Profile: "dev", Client: client,
		Params: map[string]string{"mfa_serial": serial, "duration_seconds": "43200"}}, sts.Deps{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	in := cred.Input{Key: cred.LinkKey{1}, Profile: "dev", Ask: w.Ways, Base: pair}
	c, err := s.Fetch(t.Context(), in)
	if err != nil || !c.Temporary() {
		t.Fatalf("%v", err)
	}
	if got, _ := aws.Session(c.AccessKeyID); !got.MFA {
		t.Error("the session has no MFA")
	}
	// At once again: too soon for another code, which costs no call.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	before, at := aws.Count("GetSessionToken"), stepOf(w.now())
	if _, err := s.Fetch(ctx, in); stepOf(w.now()) == at && !errors.Is(err, cred.ErrUnavailable) || stepOf(w.now()) == at && aws.Count("GetSessionToken") != before {
		t.Errorf("%v", err)
	}
}

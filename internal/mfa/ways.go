package mfa

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// Deps is what Ways work with.
type Deps struct {
	Next  cred.Asker // asks people
	Store cred.Store // seeds: records "totp/<hash of the serial>"
	// Run runs a mfa_process line and returns what it printed; name is what
	// its errors call it. nil: none is run.
	Run func(ctx context.Context, name, line string) (cred.Secret, error)
	// Args runs ykman, which it looks up on PATH, without a shell. nil: no
	// YubiKey is asked.
	Args func(ctx context.Context, name string, args ...string) (cred.Secret, error)
	// Touch tells a person that a YubiKey waits for a touch, until ctx ends;
	// it returns at once. nil: the key's own blinking must do.
	Touch func(ctx context.Context, q cred.Question)
	// Skew is AWS's clock minus ours as far as it is known; nil is 0.
	Skew func() time.Duration
	Log  *logrus.Entry // nil for none
}

// Ways answers questions for MFA codes where a way without a person is, and
// passes on all others. It implements cred.Asker, is safe for concurrent
// use, and has no goroutine of its own once a call has returned.
type Ways struct {
	d Deps

	mu     sync.Mutex               // guards what follows
	held   map[string]chan struct{} // by serial, cap 1: whoever put something in takes the next code
	last   map[string]int64         // by serial: step of the last code that was given
	seeds  map[string]bool          // by name of the record: those in the Store
	loaded bool                     // seeds is what the Store has
}

// New returns Ways. It starts and opens nothing.
func New(d Deps) *Ways {
	return &Ways{d: d, held: map[string]chan struct{}{}, last: map[string]int64{}, seeds: map[string]bool{}}
}

func (w *Ways) skew() time.Duration {
	if w.d.Skew == nil {
		return 0
	}
	return w.d.Skew()
}

// now is the time by AWS's clock.
func (w *Ways) now() time.Time { return time.Now().Add(w.skew()) }

// hold makes the caller the only one that takes codes of a device, until it
// calls release.
func (w *Ways) hold(ctx context.Context, serial string) (release func(), err error) {
	w.mu.Lock()
	sem := w.held[serial]
	if sem == nil {
		sem = make(chan struct{}, 1)
		w.held[serial] = sem
	}
	w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case sem <- struct{}{}:
		return func() { <-sem }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// note remembers what is in the Store of a device.
func (w *Ways) note(serial string, at int64, kept bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if kept {
		w.last[serial], w.seeds[recordName(serial)] = at, true
		return
	}
	delete(w.last, serial)
	delete(w.seeds, recordName(serial))
}

func (w *Ways) lastStep(serial string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[serial]
}

// Unattended reports whether a code of the device comes without a person:
// by a mfa_process, or from a seed in the vault. It reads the Store at most
// once, and works while that is locked.
func (w *Ways) Unattended(serial, process string) bool {
	if process != "" && w.d.Run != nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.loaded {
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		defer cancel()
		names, err := w.d.Store.List(ctx, recordPrefix)
		if err != nil {
			return false // read again at the next call
		}
		for _, name := range names {
			w.seeds[name] = true
		}
		w.loaded = true
	}
	return w.seeds[recordName(strings.TrimSpace(serial))]
}

// Ask finds the answer to a question for an MFA code, or passes it on.
// Errors: those of Next, with what failed before it was asked;
// cred.ErrUnavailable when a code of a seed comes too late for ctx.
func (w *Ways) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	if q.Kind != cred.AskMFA {
		return w.d.Next.Ask(ctx, key, q)
	}
	var failed []string
	fail := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed = append(failed, err.Error())
		if w.d.Log != nil {
			w.d.Log.WithError(err).WithFields(logrus.Fields{"profile": q.Profile, "serial": q.Serial}).Warn("an MFA code can't be had without a person")
		}
		return nil
	}
	if q.Process != "" && w.d.Run != nil {
		code, err := w.process(ctx, q)
		if err == nil {
			return code, nil
		}
		if err := fail(err); err != nil {
			return cred.Secret{}, err
		}
	}
	if q.Serial != "" {
		code, err := w.Code(ctx, q.Serial)
		switch {
		case err == nil:
			return code.Code, nil
		case errors.Is(err, cred.ErrNotFound):
		case errors.Is(err, cred.ErrUnavailable):
			return cred.Secret{}, err
		default:
			if err := fail(err); err != nil {
				return cred.Secret{}, err
			}
		}
	}
	code, err := w.person(ctx, key, q)
	var ie *cred.InteractionError
	if len(failed) > 0 && errors.As(err, &ie) {
		with := *ie
		with.Message = ie.Error() + " (" + strings.Join(failed, "; ") + ")"
		return cred.Secret{}, &with
	}
	return code, err
}

// process runs the profile's mfa_process.
func (w *Ways) process(ctx context.Context, q cred.Question) (cred.Secret, error) {
	name := "mfa_process of profile " + q.Profile
	out, err := w.d.Run(ctx, name, q.Process)
	if err != nil {
		return cred.Secret{}, err
	}
	if code, ok := sixDigits(out); ok {
		return code, nil
	}
	return cred.Secret{}, errors.New(name + " printed something else than six digits")
}

// sixDigits takes white space away.
func sixDigits(s cred.Secret) (cred.Secret, bool) {
	text := strings.TrimSpace(s.Reveal())
	if len(text) != digits || strings.Trim(text, "0123456789") != "" {
		return cred.Secret{}, false
	}
	return cred.NewSecret(text), true
}

// Times of a YubiKey.
const (
	keyDelay   = 150 * time.Millisecond // a question that lasts as long is put to a person
	keyList    = 10 * time.Second
	keyCode    = 30 * time.Second
	touchDelay = 1500 * time.Millisecond // who takes longer waits for a touch
)

// person asks a person and, beside that, a YubiKey: whichever answers first.
func (w *Ways) person(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	if w.d.Args == nil || q.Serial == "" {
		return w.d.Next.Ask(ctx, key, q)
	}
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		code cred.Secret
		err  error
	}
	asked, found := make(chan result, 1), make(chan cred.Secret, 1)
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	both.Go(func() {
		code, err := w.d.Next.Ask(ctx, key, q)
		asked <- result{code, err}
	})
	delay := time.NewTimer(keyDelay)
	defer delay.Stop()
	for {
		select {
		case r := <-asked:
			return r.code, r.err
		case <-delay.C:
			both.Go(func() {
				code, err := w.yubiKey(ctx, q)
				switch {
				case err == nil && !code.IsZero():
					found <- code
				case err != nil && ctx.Err() == nil && w.d.Log != nil:
					w.d.Log.WithError(err).WithField("serial", q.Serial).Debug("no code from a YubiKey")
				}
			})
		case code := <-found:
			return code, nil
		}
	}
}

// yubiKey returns a code of the device's account on a YubiKey, the zero
// value where there is none.
func (w *Ways) yubiKey(ctx context.Context, q cred.Question) (cred.Secret, error) {
	const name = "ykman"
	list, cancel := context.WithTimeout(ctx, keyList)
	defer cancel()
	names, err := w.d.Args(list, name, "ykman", "oath", "accounts", "list")
	if err != nil {
		return cred.Secret{}, err
	}
	account := accountOf(strings.Split(names.Reveal(), "\n"), q.Serial)
	if account == "" {
		return cred.Secret{}, nil
	}
	get, cancel := context.WithTimeout(ctx, keyCode)
	defer cancel()
	var told sync.WaitGroup
	defer told.Wait()
	touched := make(chan struct{})
	defer close(touched)
	told.Go(func() {
		t := time.NewTimer(touchDelay)
		defer t.Stop()
		select {
		case <-t.C:
			if w.d.Touch != nil {
				w.d.Touch(get, q)
			}
		case <-touched:
		}
	})
	out, err := w.d.Args(get, name, "ykman", "oath", "accounts", "code", "--single", account)
	if err != nil {
		return cred.Secret{}, err
	}
	code, ok := sixDigits(out)
	if !ok {
		return cred.Secret{}, fmt.Errorf("%s printed something else than six digits", name)
	}
	return code, nil
}

// accountOf is the account of a device among those that ykman lists
// (ISSUER:NAME or NAME), "" for none and for several.
func accountOf(lines []string, serial string) string {
	device := serial[strings.LastIndexByte(serial, '/')+1:]
	var exact, likely []string
	for _, line := range lines {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "-"): // what begins so would be an option
		case line == serial || strings.HasSuffix(line, ":"+serial) && strings.Count(line, ":") == strings.Count(serial, ":")+1:
			exact = append(exact, line)
		default:
			issuer, name, _ := strings.Cut(line, ":")
			name, _, _ = strings.Cut(name, "@")
			switch strings.ToLower(issuer) {
			case "amazon web services", "amazon", "aws":
				if name != "" && name == device {
					likely = append(likely, line)
				}
			}
		}
	}
	switch {
	case len(exact) == 1:
		return exact[0]
	case len(exact) == 0 && len(likely) == 1:
		return likely[0]
	}
	return ""
}

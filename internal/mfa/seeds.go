package mfa

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"keyfob/internal/cred"
)

const (
	recordPrefix  = "totp/"
	recordVersion = 1
	// maxAhead: a last step that is further ahead of now was noted by
	// another clock and says nothing.
	maxAhead = 2
	// callTime is what is left to a call to AWS after the wait for a code.
	callTime = 5 * time.Second
	// storeTimeout bounds a look into the vault's list.
	storeTimeout = time.Second
)

// ErrExists: the vault has a seed of that device.
var ErrExists = errors.New("the vault has a seed of this device already")

// record is a seed in the vault.
type record struct {
	Version  int       `json:"version"`
	Serial   string    `json:"serial"`
	Seed     string    `json:"seed"` // base32
	Added    time.Time `json:"added"`
	LastStep int64     `json:"last_step,omitempty"` // of the last code that was given
}

func recordName(serial string) string {
	sum := sha256.Sum256([]byte(serial))
	return recordPrefix + hex.EncodeToString(sum[:])
}

func encode(r record) (cred.Secret, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return cred.Secret{}, errors.New("cannot encode the seed's record")
	}
	defer clear(b)
	return cred.SecretBytes(b), nil
}

// decode reads a record. The error shows nothing of it.
func decode(s cred.Secret) (record, []byte, error) {
	var r record
	b := s.AppendReveal(nil)
	defer clear(b)
	if err := json.Unmarshal(b, &r); err != nil || r.Version < 1 {
		return record{}, nil, errors.New("the vault's record is not one of a TOTP seed")
	}
	if r.Version > recordVersion {
		return record{}, nil, fmt.Errorf("the vault's record has version %d, made by a newer keyfob", r.Version)
	}
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(r.Seed)
	if err != nil || len(key) == 0 || r.Serial == "" {
		return record{}, nil, errors.New("the vault's record is not one of a TOTP seed")
	}
	return r, key, nil
}

// Device is an MFA device whose seed the vault has.
type Device struct {
	Serial string
	Added  time.Time
	Used   time.Time // the step of the last code that was given, zero for none
	Err    error     // its record can't be read; Serial is then unknown
	Record string    // name of the record
}

// Code is a code and the end of its step by this machine's clock. AWS takes
// it for some time longer.
type Code struct {
	Code cred.Secret
	Ends time.Time
}

// Add keeps the seed of the MFA device serial: base32 as AWS shows it, or
// the otpauth:// URL of its QR code. It returns the codes of the last two
// steps, which enable a new virtual device at AWS (EnableMFADevice); they
// count as given. Errors: ErrExists unless replace is set; a serial or seed
// that is none; the Store's.
func (w *Ways) Add(ctx context.Context, serial string, seed cred.Secret, replace bool) (codes [2]cred.Secret, err error) {
	serial = strings.TrimSpace(serial)
	if err := checkSerial(serial); err != nil {
		return codes, err
	}
	key, err := parseSeed(seed)
	if err != nil {
		return codes, cred.WithHint(fmt.Errorf("cannot keep the seed of %s: %w", serial, err),
			"the console shows it under \"Show secret key\", and aws iam create-virtual-mfa-device in its file")
	}
	defer clear(key)
	unlock, err := w.hold(ctx, serial)
	if err != nil {
		return codes, err
	}
	defer unlock()
	_, err = w.d.Store.Get(ctx, recordName(serial))
	switch {
	case err == nil && !replace:
		return codes, cred.WithHint(fmt.Errorf("cannot keep the seed of %s: %w", serial, ErrExists), "keyfob mfa remove "+serial)
	case err != nil && !errors.Is(err, cred.ErrNotFound):
		return codes, fmt.Errorf("cannot keep the seed of %s: %w", serial, err)
	}
	now := w.now()
	at := stepOf(now)
	r := record{Version: recordVersion, Serial: serial, Seed: base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(key), Added: now.UTC().Truncate(time.Second), LastStep: at}
	s, err := encode(r)
	if err == nil {
		err = w.d.Store.Put(ctx, recordName(serial), s)
	}
	if err != nil {
		return codes, fmt.Errorf("cannot keep the seed of %s: %w", serial, err)
	}
	w.note(serial, at, true)
	return [2]cred.Secret{cred.NewSecret(codeOf(key, at-1)), cred.NewSecret(codeOf(key, at))}, nil
}

// checkSerial refuses what is no MFA device that has a seed: AWS names
// virtual devices by ARN, hardware ones by a short number.
func checkSerial(serial string) error {
	p := strings.SplitN(serial, ":", 6)
	if len(p) == 6 && p[0] == "arn" && p[2] == "iam" && strings.HasPrefix(p[5], "mfa/") && len(p[5]) > len("mfa/") && !strings.ContainsAny(serial, " \t\r\n") {
		return nil
	}
	return cred.WithHint(fmt.Errorf("cannot keep a seed for %q: it is not the ARN of a virtual MFA device", shorten(serial)),
		"as in mfa_serial: arn:aws:iam::ACCOUNT:mfa/NAME")
}

func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// List returns the devices whose seeds the vault has, by serial, and those
// whose records can't be read last. Errors: the Store's.
func (w *Ways) List(ctx context.Context) ([]Device, error) {
	names, err := w.d.Store.List(ctx, recordPrefix)
	if err != nil {
		return nil, fmt.Errorf("cannot list the MFA devices: %w", err)
	}
	all := []Device{}
	for _, name := range names {
		s, err := w.d.Store.Get(ctx, name)
		switch {
		case errors.Is(err, cred.ErrNotFound):
			continue // removed meanwhile
		case errors.Is(err, cred.ErrLocked):
			return nil, fmt.Errorf("cannot list the MFA devices: %w", err)
		case err != nil:
			all = append(all, Device{Record: name, Err: err})
			continue
		}
		r, key, err := decode(s)
		clear(key)
		if err != nil {
			all = append(all, Device{Record: name, Err: err})
			continue
		}
		d := Device{Serial: r.Serial, Added: r.Added, Record: name}
		if r.LastStep > 0 {
			d.Used = stepTime(r.LastStep).UTC()
		}
		all = append(all, d)
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if (a.Err == nil) != (b.Err == nil) {
			return a.Err == nil
		}
		return a.Serial < b.Serial
	})
	return all, nil
}

// Remove forgets the seed of a device. Errors: Is cred.ErrNotFound where
// there is none; the Store's.
func (w *Ways) Remove(ctx context.Context, serial string) error {
	serial = strings.TrimSpace(serial)
	unlock, err := w.hold(ctx, serial)
	if err != nil {
		return err
	}
	defer unlock()
	err = w.d.Store.Delete(ctx, recordName(serial))
	switch {
	case errors.Is(err, cred.ErrNotFound):
		w.note(serial, 0, false)
		return noSeed(serial)
	case err != nil:
		return fmt.Errorf("cannot remove the seed of %s: %w", shorten(serial), err)
	}
	w.note(serial, 0, false)
	return nil
}

func noSeed(serial string) error {
	return cred.WithHint(fmt.Errorf("cannot find a seed of %s in the vault: %w", shorten(serial), cred.ErrNotFound), "keyfob mfa list")
}

// Code returns a code of the device that was not given before: that of the
// step that AWS's clock is in, or, when that one was given, the next one's
// as soon as it begins, which takes 30 s at most. When ctx leaves no time for
// that the error is a cred.ErrUnavailable that says when there is one. Other
// errors: Is cred.ErrNotFound where the vault has no seed of it; the Store's;
// the context's.
func (w *Ways) Code(ctx context.Context, serial string) (Code, error) {
	serial = strings.TrimSpace(serial)
	unlock, err := w.hold(ctx, serial)
	if err != nil {
		return Code{}, err
	}
	defer unlock()
	s, err := w.d.Store.Get(ctx, recordName(serial))
	switch {
	case errors.Is(err, cred.ErrNotFound):
		return Code{}, noSeed(serial)
	case err != nil:
		return Code{}, fmt.Errorf("cannot read the seed of %s: %w", shorten(serial), err)
	}
	r, key, err := decode(s)
	if err != nil {
		return Code{}, cred.WithHint(fmt.Errorf("cannot read the seed of %s: %w", shorten(serial), err), "keyfob mfa remove "+shorten(serial)+", and add it again")
	}
	defer clear(key)
	last := max(r.LastStep, w.lastStep(serial))
	at, err := w.await(ctx, serial, last)
	if err != nil {
		return Code{}, err
	}
	r.LastStep = at
	w.note(serial, at, true)
	if s, err = encode(r); err == nil {
		err = w.d.Store.Put(ctx, recordName(serial), s)
	}
	if err != nil && w.d.Log != nil {
		// It is in memory, and AWS refuses a code that comes twice.
		w.d.Log.WithError(err).WithField("serial", serial).Warn("that a code was given is not in the vault")
	}
	return Code{Code: cred.NewSecret(codeOf(key, at)), Ends: stepTime(at + 1).Add(-w.skew()).UTC()}, nil
}

// await returns the first step after last that has begun, and waits for it.
func (w *Ways) await(ctx context.Context, serial string, last int64) (int64, error) {
	for {
		now := w.now()
		at := stepOf(now)
		if at > last || last > at+maxAhead {
			return at, nil
		}
		wait := stepTime(last + 1).Sub(now)
		if until, ok := ctx.Deadline(); ok && time.Until(until) < wait+callTime {
			return 0, cred.WithHint(fmt.Errorf("cannot get a code of %s: the last one was used, and the next one comes in %s: %w",
				shorten(serial), wait.Round(time.Second), cred.ErrUnavailable), "AWS takes each code once: try again then")
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, ctx.Err()
		}
	}
}

package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Pair is a long-lived key pair of the vault.
type Pair struct {
	cred.Credentials
	Added time.Time // when it came into the vault, zero where that is not known
}

// KeyVault is where long-lived pairs are kept.
type KeyVault interface {
	// Pairs returns every pair, by profile.
	Pairs(ctx context.Context) (map[string]Pair, error)
	// Replace puts p in the place of a profile's pair, if that has the id old
	// at this moment. The profile then has either the one or the other,
	// whenever the process is killed.
	Replace(ctx context.Context, profile, old string, p Pair) error
}

// Rotation is what rotations work with.
type Rotation struct {
	Keys    KeyVault
	Journal cred.Store // records rotate/…
	// Client returns what the clients of the pair of a profile are built from.
	Client func(profile string) (profiles.Client, error)
	// Session returns a session of the profile's pair that carries an MFA
	// code, for users whose policy lets their bare keys do nothing in IAM. It
	// may ask a person. ErrNoDevice where no device is known; nil for never.
	Session func(ctx context.Context, profile string) (cred.Credentials, error)
	// Changed is told whenever pairs in the vault were replaced.
	Changed func(ctx context.Context)
	// Notice is told each step, for a person who waits; nil for nobody.
	Notice func(line string)
	// Due leaves pairs alone that AWS made less than so long ago; 0 for none.
	Due time.Duration
}

// Rotated is what became of one pair.
type Rotated struct {
	Profile  string
	Also     []string // other profiles that have the same pair
	User     string   // its ARN
	Old, New string   // access key ids
	Resumed  bool     // an earlier rotation was finished
	Skipped  string   // why nothing was done, "" where something was
	Warnings []string
}

// ErrNoDevice is Session's error where no MFA device is known for a pair.
var ErrNoDevice = errors.New("no MFA device is known for these keys")

// ErrNoPair Is in the error for a profile that has no pair in the vault.
var ErrNoPair = errors.New("there is no key pair in the vault")

// keyPatience is how long a rotation waits until a new key works everywhere
// in AWS, and for AWS to answer at all once a key was made. IAM says that its
// changes take "a few seconds" as a rule and gives no limit.
const keyPatience = 2 * time.Minute

// Rotatable lists one profile for each distinct pair of the vault, sorted,
// and the profiles of rotations whose pair the vault no longer has.
func (d Deps) Rotatable(ctx context.Context, r Rotation) (pairs, orphans []string, err error) {
	all, err := r.Keys.Pairs(ctx)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	for _, profile := range sortedKeys(all) {
		if id := all[profile].AccessKeyID; !seen[id] {
			seen[id] = true
			pairs = append(pairs, profile)
		}
	}
	journals, err := readJournals(ctx, r.Journal)
	if err != nil {
		return nil, nil, err
	}
	for _, j := range journals {
		if j.orphan(all) {
			orphans = append(orphans, j.Profiles[0])
		}
	}
	return pairs, orphans, nil
}

// Rotate puts a new key pair in the place of the one that the vault has for
// a profile, and deletes the old one at AWS: create, verify, store,
// deactivate, delete. One that was broken off, by whatever, is gone on with
// from where AWS says that it stands. At every moment the vault has a pair
// that works, and of the user's other keys none is touched.
//
// Errors: one that Is ErrNoPair; *cred.UpstreamError; *cred.InteractionError;
// those of the vault. Their text says how far it came. What Rotated says is
// true also with an error. Two at a time must not run on one vault.
func (d Deps) Rotate(ctx context.Context, r Rotation, profile string) (Rotated, error) {
	pool, done := d.pool()
	defer done()
	d.Pool = pool
	out := Rotated{Profile: profile}
	pairs, err := r.Keys.Pairs(ctx)
	if err != nil {
		return out, err
	}
	journals, err := readJournals(ctx, r.Journal)
	if err != nil {
		return out, err
	}
	x := &rotating{Deps: d, Rotation: r, out: &out}
	x.Skew = func(skew time.Duration) {
		x.skew = skew
		if d.Skew != nil {
			d.Skew(skew)
		}
	}
	pair, ok := pairs[profile]
	i := slices.IndexFunc(journals, func(j journal) bool {
		return ok && j.concerns(pair.AccessKeyID) || !ok && slices.Contains(j.Profiles, profile) && j.orphan(pairs)
	})
	switch {
	case i >= 0:
		x.j, x.resumed = journals[i], true
		out.Resumed = true
	case ok:
		x.j = journal{Old: journaledPair(pair), Profiles: holders(pairs, pair.AccessKeyID)}
	default:
		return out, cred.WithHint(fmt.Errorf("cannot rotate the keys of %s: %w", profile, ErrNoPair), "keyfob add "+profile)
	}
	out.Old = x.j.Old.ID
	if x.j.New != nil {
		out.New = x.j.New.ID
	}
	out.User = x.j.User
	out.Also = slices.DeleteFunc(slices.Clone(x.j.Profiles), func(p string) bool { return p == profile })
	if x.client, err = r.Client(profile); err != nil {
		return out, fmt.Errorf("cannot rotate the keys of %s: %w", profile, err)
	}
	if err := x.run(ctx); err != nil {
		return out, x.stands(err)
	}
	return out, nil
}

// sortedKeys are the keys of a map, sorted.
func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// holders are the profiles that have the pair id, sorted.
func holders(pairs map[string]Pair, id string) []string {
	var names []string
	for _, n := range sortedKeys(pairs) {
		if pairs[n].AccessKeyID == id {
			names = append(names, n)
		}
	}
	return names
}

// rotating is one rotation under way.
type rotating struct {
	Deps
	Rotation
	client  profiles.Client
	j       journal
	out     *Rotated
	resumed bool
	stored  bool             // the vault has the new pair
	skew    time.Duration    // AWS's clock minus ours where they differ much
	session cred.Credentials // with an MFA code, once it was needed
}

func (x *rotating) run(ctx context.Context) error {
	pairs, err := x.Keys.Pairs(ctx)
	if err != nil {
		return err
	}
	if x.resumed && x.j.orphan(pairs) {
		return x.abandon(ctx)
	}
	if x.j.New != nil {
		if err := x.checkNewIsThere(ctx); err != nil {
			return err
		}
	}
	if x.j.New == nil {
		if err := x.begin(ctx); err != nil || x.out.Skipped != "" {
			return err
		}
	}
	if err := x.verify(ctx); err != nil {
		return err
	}
	if err := x.store(ctx); err != nil {
		return err
	}
	return x.retire(ctx)
}

// stands adds to an error how far the rotation came.
func (x *rotating) stands(err error) error {
	text := ""
	switch {
	case x.j.New == nil:
		return err
	case !x.stored:
		text = fmt.Sprintf("the vault still has the old key, and `keyfob rotate %s` goes on with the new one, %s", x.out.Profile, x.j.New.ID)
	default:
		text = fmt.Sprintf("the vault has the new key, %s, which works, and `keyfob rotate %s` goes on", x.j.New.ID, x.out.Profile)
	}
	return fmt.Errorf("%w; %s", err, text)
}

// say tells a person and the log of a step.
func (x *rotating) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if x.Notice != nil {
		x.Notice(line)
	}
	if x.Log != nil {
		e := x.Log.WithField("profile", x.out.Profile).WithField("old_access_key_id", x.out.Old)
		if x.out.New != "" {
			e = e.WithField("access_key_id", x.out.New)
		}
		e.WithField("step", line).Info("rotation of a key pair")
	}
}

func (x *rotating) warn(format string, args ...any) {
	x.out.Warnings = append(x.out.Warnings, fmt.Sprintf(format, args...))
}

// patiently repeats do while AWS has not heard of a new key yet, or does not
// answer. It is for calls that do no harm when they are made twice.
func (x *rotating) patiently(ctx context.Context, do func() error) error {
	end := time.Now().Add(keyPatience)
	for pause := 500 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := do()
		var up *cred.UpstreamError
		if err == nil || !errors.As(err, &up) || up.Refused && !unknownKey(err) || !time.Now().Add(pause).Before(end) {
			return err
		}
		if pause == 4*time.Second {
			x.say("waiting for AWS: %s", strings.TrimPrefix(err.Error(), "cannot "))
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// userName is the user's name in IAM.
func (x *rotating) userName() string { return userOf(x.j.User) }

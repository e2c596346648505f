package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/ops"
	"keyfob/profiles"
)

// rotate replaces long-lived pairs of the vault. It goes on when the command
// is gone: what has begun is better finished than resumed.
func (d *daemon) rotate(c *call) (any, error) {
	p, err := decode[control.RotateParams](c)
	if err != nil {
		return nil, err
	}
	if p.All {
		p.Named = true // no profile is chosen here
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	if p.Due < 0 || p.Due > int64(maxDue/time.Second) {
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot rotate the keys: a time of 0 to 10 years is needed"}
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	if d.vault.Status().Locked {
		return nil, cred.ErrLocked
	}
	// Two rotations of one pair would take each other's new key for lost. The
	// lock is the kernel's: it ends with the process.
	lock := flock.New(filepath.Join(d.conf().DataDir, "rotate.lock"), flock.SetPermissions(0o600))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("cannot lock the data directory: %w", err)
	case !ok:
		return nil, &control.Error{Code: control.CodeUnavailable, Message: "cannot rotate the keys: another rotation is under way", Hint: "try again when it has ended"}
	}
	defer func() { _ = lock.Unlock() }()
	d.freshProfiles(c.ctx)
	if p.All {
		return d.rotateAll(c, p)
	}
	profile, err := d.pairOf(c, p.Context)
	if err != nil {
		return nil, err
	}
	out, err := d.rotateOne(c, p, profile)
	if err != nil {
		return nil, err
	}
	return control.RotateResult{Keys: []control.RotatedKey{out}}, nil
}

const maxDue = 10 * 366 * 24 * time.Hour

// rotateAll goes through all pairs of the vault. What fails for one does not
// keep the others from their turn.
func (d *daemon) rotateAll(c *call, p control.RotateParams) (any, error) {
	pairs, orphans, err := d.opsDeps().Rotatable(c.ctx, d.rotation(c, p))
	if err != nil {
		return nil, err
	}
	res := control.RotateResult{Keys: []control.RotatedKey{}}
	for _, profile := range slices.Concat(pairs, orphans) {
		if c.ctx.Err() != nil {
			return nil, c.ctx.Err()
		}
		out, err := d.rotateOne(c, p, profile)
		if err != nil {
			e := d.wireError(err, "rotate the keys of "+profile)
			out.Error, out.Hint = e.Message, e.Hint
		}
		res.Keys = append(res.Keys, out)
	}
	return res, nil
}

// pairOf finds the profile whose pair in the vault a request means: its own,
// or the one at the base of its chain.
func (d *daemon) pairOf(c *call, p control.Context) (string, error) {
	name := d.request(c, p, cred.ViaLogin).Profile
	pairs, orphans, err := d.opsDeps().Rotatable(c.ctx, d.rotation(c, control.RotateParams{Context: p}))
	if err != nil {
		return "", err
	}
	if _, own := d.vaultKeys(c.ctx)[name]; own || slices.Contains(pairs, name) || slices.Contains(orphans, name) {
		return name, nil
	}
	prof, err := d.set().Resolve(d.query(p))
	if err != nil {
		return "", unknownProfile(err)
	}
	if inVault(prof.Chain) {
		return prof.Chain[0].Profile, nil
	}
	if prof.Err != nil {
		return "", prof.Err
	}
	text := fmt.Sprintf("cannot rotate the keys of %s: it has none, its credentials come of a link of kind %s", name, prof.Chain[0].Kind)
	switch base := prof.Chain[0]; {
	case base.Kind == profiles.KindStaticKeys:
		return "", cred.WithHint(fmt.Errorf("cannot rotate the keys of %s: they stand in %s:%d, and keyfob rotates what is in its vault", name, base.Origin.File, base.Origin.Line), "keyfob import moves them there")
	case base.Kind == profiles.KindEnvironmentKeys:
		return "", cred.WithHint(fmt.Errorf("cannot rotate the keys of %s: they stand in the environment, and keyfob rotates what is in its vault", name), "keyfob add "+name)
	}
	return "", cred.WithHint(fmt.Errorf("%s", text), "keyfob explain "+name)
}

func (d *daemon) rotateOne(c *call, p control.RotateParams, profile string) (control.RotatedKey, error) {
	r := c.caller
	r.Profile, r.Via = profile, cred.Endpoint{Kind: cred.ViaLogin}
	if err := d.check(r.Caller, profile, r.Via); err != nil && d.set().Has(profile) {
		d.refusal(r, err)
		return control.RotatedKey{Profile: profile}, err
	}
	done, err := d.opsDeps().Rotate(c.ctx, d.rotation(c, p), profile)
	out := control.RotatedKey{Profile: done.Profile, User: done.User, Old: done.Old, New: done.New, Also: done.Also,
		Resumed: done.Resumed, Skipped: done.Skipped, Warnings: done.Warnings}
	if err != nil || done.New == "" {
		return out, err
	}
	for _, name := range append([]string{done.Profile}, done.Also...) {
		d.broker.Wake(name)
	}
	out.Warnings = append(out.Warnings, d.leftOf(done)...)
	return out, nil
}

// rotation is what a rotation for this call works with.
func (d *daemon) rotation(c *call, p control.RotateParams) ops.Rotation {
	return ops.Rotation{
		Keys:    (*keyVault)(d),
		Journal: d.vault,
		Due:     time.Duration(p.Due) * time.Second,
		Client: func(profile string) (profiles.Client, error) {
			prof, err := d.set().Resolve(named(profile))
			if err != nil { // of a profile that is gone the key is left
				return profiles.Client{}, nil
			}
			if len(prof.Chain) == 0 && prof.Err != nil {
				return profiles.Client{}, prof.Err
			}
			return prof.Chain[0].Client, nil
		},
		Session: func(ctx context.Context, profile string) (cred.Credentials, error) {
			return d.codedSession(ctx, c, p.MayAsk, profile)
		},
		Changed: d.refreshVaultKeys,
		Notice:  c.notice,
	}
}

// notice tells the person behind a call one line.
func (c *call) notice(line string) {
	_ = c.conn.WriteEvent(control.Event{ID: c.conn.id, Event: control.EventNotice, Notice: line})
}

// codedSession is a session of a profile's pair that carries an MFA code:
// the one that the broker has, where a profile hands out just that; else one
// for the device of a profile above. Without any it is ops.ErrNoDevice.
func (d *daemon) codedSession(ctx context.Context, c *call, mayAsk bool, profile string) (cred.Credentials, error) {
	id := d.vaultKeys(ctx)[profile].AccessKeyID
	names := append([]string{profile}, slices.DeleteFunc(d.set().Names(), func(n string) bool { return n == profile })...)
	for _, name := range names {
		prof, err := d.set().Resolve(named(name))
		if err != nil || prof.Err != nil {
			continue
		}
		chain := prof.Chain
		if !inVault(chain) || chain[0].Params["aws_access_key_id"] != id || len(chain) < 2 || chain[1].Kind != profiles.KindSessionToken || chain[1].Params["mfa_serial"] == "" {
			continue
		}
		c.notice("AWS refuses that to the bare keys: trying with an MFA code of " + chain[1].Params["mfa_serial"])
		r := c.caller
		r.Profile, r.MayAsk, r.Via = name, mayAsk, cred.Endpoint{Kind: cred.ViaLogin}
		if len(chain) == 2 {
			snap, err := d.getAsking(c, r)
			if err != nil {
				return cred.Credentials{}, about(err, name)
			}
			return snap.Credentials, nil
		}
		return d.fetchCoded(ctx, c, r, chain)
	}
	return cred.Credentials{}, ops.ErrNoDevice
}

// fetchCoded makes the second link of a chain: a session that the broker
// gives to the roles above it alone.
func (d *daemon) fetchCoded(ctx context.Context, c *call, r cred.Request, chain []profiles.Link) (cred.Credentials, error) {
	keys, links, err := d.broker.Chain(r)
	if err != nil {
		return cred.Credentials{}, about(err, r.Profile)
	}
	if len(links) < 2 || links[1].Kind != profiles.KindSessionToken {
		return cred.Credentials{}, fmt.Errorf("cannot get a session with an MFA code for %s: its profile has just changed", r.Profile)
	}
	base, err := d.longLived(chain)(ctx)
	if err != nil {
		return cred.Credentials{}, err
	}
	src, err := (*sources)(d).For(links[1])
	if err != nil {
		return cred.Credentials{}, err
	}
	wait := waitProcess
	if r.MayAsk {
		watched, stop := c.conn.Watch(ctx)
		defer stop()
		ctx, wait = watched, d.conf().SignInTimeout
		defer d.attach(c, r)()
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return src.Fetch(ctx, cred.Input{Key: keys[1], Profile: r.Profile, Base: base, Ask: d.shared.mfa})
}

// leftOf says what a rotation leaves to a person: files that have the old
// key, and sessions that want a code again.
func (d *daemon) leftOf(done ops.Rotated) []string {
	var left, codes []string
	for _, name := range d.set().Names() {
		prof, err := d.set().Resolve(named(name))
		if err != nil {
			continue
		}
		if s, ok := prof.Get("aws_access_key_id"); ok {
			places := append([]profiles.Shadow{{Value: s.Value, Origin: s.Origin}}, s.Shadows...)
			for _, at := range places {
				if at.Value == done.Old && at.Origin.File != "" {
					left = append(left, fmt.Sprintf("%s:%d has the old key %s too, which no longer works: remove it there", at.Origin.File, at.Origin.Line, done.Old))
				}
			}
		}
		if chain := prof.Chain; prof.Err == nil && inVault(chain) && chain[0].Params["aws_access_key_id"] == done.New && len(chain) > 1 && chain[1].Kind == profiles.KindSessionToken {
			if serial := chain[1].Params["mfa_serial"]; serial != "" && !d.shared.mfa.Unattended(serial, chain[1].Params["mfa_process"]) {
				codes = append(codes, name)
			}
		}
	}
	if len(codes) > 0 {
		more := ""
		if len(codes) > 1 {
			more = fmt.Sprintf(" (and %d more profiles)", len(codes)-1)
		}
		left = append(left, fmt.Sprintf("the sessions of %s%s are made with the new key from now on, which needs an MFA code: keyfob login %s", codes[0], more, codes[0]))
	}
	return slices.Compact(left)
}

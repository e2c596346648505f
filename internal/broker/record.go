package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// recordPrefix is where sessions lie in the Store, by the key of their link.
const recordPrefix = "session/"

// recordVersion is the version of a session's record. A reader ignores
// records of versions that it does not know and leaves them to who does.
const recordVersion = 1

func recordName(k cred.LinkKey) string { return recordPrefix + k.String() }

// record is a session in the vault. It is the one place where the broker
// reveals secrets; the Store seals them.
type record struct {
	Version         int       `json:"version"`
	Kind            string    `json:"kind"`    // of the link, for people and sweeps
	Profile         string    `json:"profile"` // whose section the link comes from
	AccessKeyID     string    `json:"access_key_id"`
	SecretAccessKey string    `json:"secret_access_key"`
	SessionToken    string    `json:"session_token"`
	Expires         time.Time `json:"expires"`       // by AWS's clock
	Fetched         time.Time `json:"fetched"`       // by ours
	From            time.Time `json:"from,omitzero"` // the same by AWS's
	AccountID       string    `json:"account_id,omitempty"`
	RoleARN         string    `json:"role_arn,omitempty"`
	Announced       bool      `json:"announced,omitempty"` // a person was told of its end
}

// errRecordVersion: a record of a later keyfob.
var errRecordVersion = errors.New("cannot read a session record of another version")

func encodeRecord(spec *profiles.Link, p *published) (cred.Secret, error) {
	b, err := json.Marshal(record{
		Version: recordVersion, Kind: string(spec.Kind), Profile: spec.Profile,
		AccessKeyID:     p.snap.AccessKeyID,
		SecretAccessKey: p.snap.SecretAccessKey.Reveal(),
		SessionToken:    p.snap.SessionToken.Reveal(),
		Expires:         p.raw.UTC(), Fetched: p.snap.Fetched, From: p.from,
		AccountID: p.snap.AccountID, RoleARN: p.snap.RoleARN,
		Announced: p.told.Load(),
	})
	if err != nil {
		return cred.Secret{}, errors.New("cannot encode a session record")
	}
	return cred.SecretBytes(b), nil
}

// decodeRecord reads a record. Its errors hold nothing of the record, which
// may be anything.
func decodeRecord(s cred.Secret) (*record, error) {
	var r record
	if err := json.Unmarshal([]byte(s.Reveal()), &r); err != nil {
		return nil, errors.New("cannot read a session record: it is not the JSON expected")
	}
	if r.Version != recordVersion {
		return nil, errRecordVersion
	}
	if r.AccessKeyID == "" || r.SecretAccessKey == "" || r.SessionToken == "" || r.Expires.IsZero() || r.Fetched.IsZero() {
		return nil, errors.New("cannot read a session record: a field is missing")
	}
	return &r, nil
}

func (r *record) credentials() cred.Credentials {
	return cred.Credentials{
		AccessKeyID: r.AccessKeyID, SecretAccessKey: cred.NewSecret(r.SecretAccessKey),
		SessionToken: cred.NewSecret(r.SessionToken), Expires: r.Expires,
		AccountID: r.AccountID, RoleARN: r.RoleARN,
	}
}

// kept reports whether sessions of a kind are kept in the vault: keys that
// stand in a file, the environment or the vault already are not.
func kept(k profiles.Kind) bool {
	return k != profiles.KindStaticKeys && k != profiles.KindEnvironmentKeys
}

// storeGet is Store.Get with the broker's time limit.
func (b *Broker) storeGet(ctx context.Context, name string) (cred.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return b.cfg.Store.Get(ctx, name)
}

// restore publishes the session that the vault has for l, if it is still
// good. It is tried once in an active life; a locked vault is tried again.
// Only the refresher calls it.
func (l *link) restore(ctx context.Context, f *flight) {
	l.mu.Lock()
	done, spec, src := l.restored, l.spec, l.src
	l.mu.Unlock()
	if done {
		return
	}
	if !kept(spec.Kind) {
		l.setRestored(f)
		return
	}
	s, err := l.b.storeGet(ctx, recordName(l.key))
	if errors.Is(err, cred.ErrLocked) {
		return
	}
	l.setRestored(f)
	if errors.Is(err, cred.ErrNotFound) {
		return
	}
	if err != nil {
		// The Store sets aside what is corrupt. A session is worth an
		// attempt upstream, not an outage.
		l.log().WithError(err).Warn("session record cannot be read")
		return
	}
	rec, err := decodeRecord(s)
	if errors.Is(err, errRecordVersion) {
		l.log().Warn("session record is of another version")
		return
	}
	if err != nil {
		l.log().WithError(err).Warn("session record is ignored")
		l.discard(ctx, f)
		return
	}
	skew := l.b.skewNow()
	from := rec.From
	if from.IsZero() {
		from = rec.Fetched.Add(skew)
	}
	if rec.Expires.Sub(from) > maxLifetime && spec.Kind != profiles.KindProcess {
		l.log().Warn("session record is ignored: it claims to last longer than any session of AWS")
		return
	}
	p := newPublished(rec.credentials(), rec.Fetched, from, time.Now(), skew, src.Interactive())
	p.kept = true
	p.told.Store(rec.Announced)
	if p.left <= 0 {
		// Left to the sweep: it may be our clock that is wrong.
		l.setLapsed(f)
		return
	}
	if l.publish(f, p) {
		l.b.count.restored.Add(1)
		l.log().WithField("expires", p.snap.Expires).Info("session taken from the vault")
	}
}

// setLapsed notes that the vault has a session that has ended by our clock.
func (l *link) setLapsed(f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch == f.epoch {
		l.lapsed = true
	}
}

// judgeBy judges l's session by another skew. Where AWS told it, one from the
// vault is judged anew, and the vault is asked again for one that had ended:
// a machine may start with a wrong clock, and what cost a code must not be
// lost to that. Without AWS's word nothing may last longer for it.
func (l *link) judgeBy(skew time.Duration, now time.Time, told bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.cur.Load(); p != nil {
		l.cur.Store(p.withSkew(skew, now, told))
	}
	if told && l.lapsed {
		l.lapsed, l.restored = false, false
		l.asked = nil
	}
}

// setRestored notes that the vault has been asked.
func (l *link) setRestored(f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch == f.epoch {
		l.restored = true
	}
}

// save writes p to the vault; while that cannot be done, p is marked to be
// written later. A session that was forgotten since f began is not written.
func (l *link) save(ctx context.Context, f *flight, p *published) {
	spec, _ := l.source()
	if !kept(spec.Kind) {
		return
	}
	s, err := encodeRecord(spec, p)
	if err != nil {
		l.log().WithError(err).Error("session cannot be written")
		return
	}
	l.storeMu.Lock()
	defer l.storeMu.Unlock()
	if l.forgotten(f) {
		return
	}
	// The write outlives a shutdown that began during it: the session has
	// been paid for.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err = l.b.cfg.Store.Put(ctx, recordName(l.key), s)
	if before := l.unsaved.Swap(err != nil); err != nil {
		if !before {
			l.log().WithError(err).Warn("session is kept in memory only")
		}
		return
	}
	l.b.sweepSoon()
}

// discard removes l's record, unless f's session was forgotten and another
// one may have been written since.
func (l *link) discard(ctx context.Context, f *flight) {
	l.storeMu.Lock()
	defer l.storeMu.Unlock()
	if f != nil && l.forgotten(f) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := l.b.cfg.Store.Delete(ctx, recordName(l.key)); err != nil && !errors.Is(err, cred.ErrNotFound) {
		l.log().WithError(err).Warn("session record cannot be deleted")
	}
}

// sweepEvery is the least time between two sweeps of one daemon.
const sweepEvery = 24 * time.Hour

// sweepSoon starts a sweep if the last is long ago. It is called after a
// write, when the vault is known to be open, so that it needs no timer.
func (b *Broker) sweepSoon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.closed || !b.started || (!b.swept.IsZero() && now.Sub(b.swept) < sweepEvery) {
		return
	}
	b.swept = now
	b.wg.Go(func() { b.sweep(b.runCtx) })
}

// sweep deletes the records of sessions that have ended and that no active
// link owns: those of profiles that are gone or no longer used.
func (b *Broker) sweep(ctx context.Context) {
	names, err := b.cfg.Store.List(ctx, recordPrefix)
	if err != nil {
		return // the next sweep is a day ahead; nothing is lost but space
	}
	b.sweepTold(ctx)
	active := map[string]bool{}
	for _, l := range b.activeLinks() {
		active[recordName(l.key)] = true
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return
		}
		if active[name] {
			continue
		}
		s, err := b.storeGet(ctx, name)
		if err != nil {
			continue
		}
		rec, err := decodeRecord(s)
		// An hour's grace, because the clock that judges may be wrong.
		if err == nil && time.Now().Add(b.skewNow()).Sub(rec.Expires) > time.Hour {
			_ = b.cfg.Store.Delete(ctx, name) // again at the next sweep
		}
	}
}

// forgetRecords deletes the sessions in the vault whose links come from
// profile's section, also of links that are not active (another region, one
// more role). While the vault is locked their owners cannot be told.
func (b *Broker) forgetRecords(ctx context.Context, profile string) error {
	names, err := b.cfg.Store.List(ctx, recordPrefix)
	if err != nil {
		return fmt.Errorf("cannot list the sessions in the vault: %w", err)
	}
	var first error
	for _, name := range names {
		if profile != "" {
			s, err := b.storeGet(ctx, name)
			if errors.Is(err, cred.ErrLocked) {
				return cred.WithHint(fmt.Errorf("cannot tell whose sessions are in the vault: %w", err), "keyfob unlock, then log out again")
			}
			if err != nil {
				continue // set aside by the Store: it is restored by nobody
			}
			if rec, err := decodeRecord(s); err != nil || rec.Profile != profile {
				continue
			}
		}
		if err := b.cfg.Store.Delete(ctx, name); err != nil && !errors.Is(err, cred.ErrNotFound) && first == nil {
			first = fmt.Errorf("cannot delete a session from the vault: %w", err)
		}
	}
	return first
}

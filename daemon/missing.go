package daemon

import (
	"context"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// whatIsMissing tells, for list, what a person must do before a profile works.
// It is made for one list: sign-ins are shared, and each is looked at once.
type whatIsMissing struct {
	d       *daemon
	set     *profiles.Set
	locked  bool
	waiting map[string]bool // profiles in use that wait for a person
	ends    map[cred.LinkKey]time.Time
}

func (d *daemon) whatIsMissing() *whatIsMissing {
	m := &whatIsMissing{d: d, set: d.set(), locked: d.vault.Status().Locked, waiting: map[string]bool{}, ends: map[cred.LinkKey]time.Time{}}
	for _, s := range d.broker.Sessions() {
		if s.NeedsPerson && s.AccessKeyID == "" && s.RoleARN == "" {
			m.waiting[s.Profile] = true
		}
	}
	return m
}

// of is the command, "" where nothing is missing as far as it is known
// without asking anybody.
func (m *whatIsMissing) of(ctx context.Context, l profiles.Listed) string {
	if l.Err != nil {
		return ""
	}
	login := "keyfob login " + l.Name
	if m.waiting[l.Name] {
		return login
	}
	switch l.Source {
	case profiles.KindStaticKeys, profiles.KindSSO, profiles.KindOIDC, profiles.KindLogin, profiles.KindSAML:
	default:
		return ""
	}
	if snap, ok := m.d.broker.Peek(l.Name); ok && snap != nil {
		return ""
	}
	p, err := m.set.Resolve(named(l.Name))
	if err != nil || p.Err != nil || len(p.Chain) == 0 {
		return ""
	}
	base := p.Chain[0]
	if base.Kind == profiles.KindStaticKeys {
		if m.locked && base.Params["layer"] == string(profiles.FromKeystore) {
			return "keyfob unlock"
		}
		return ""
	}
	if m.locked || m.d.conf().mayRun(base) != nil {
		return "" // nothing can be said of it
	}
	src, err := (*sources)(m.d).For(base)
	if err != nil {
		return ""
	}
	shared, ok := src.(cred.SignInSource)
	if !ok {
		return ""
	}
	ends, known := m.ends[shared.AskKey()]
	if !known {
		ends = shared.SignInEnds(ctx)
		m.ends[shared.AskKey()] = ends
	}
	// Only of Identity Center does no end mean that nobody has signed in.
	if !ends.IsZero() && ends.Before(time.Now()) || ends.IsZero() && base.Kind == profiles.KindSSO {
		return login
	}
	return ""
}

// pairAdded is when the pair of a profile came into the vault, "" where there
// is none or the record does not say.
func (d *daemon) pairAdded(ctx context.Context, profile string) string {
	d.mu.Lock()
	_, has := d.keys[profile]
	d.mu.Unlock()
	if !has {
		return ""
	}
	v, err := d.vault.Get(ctx, keyRecords+profile)
	if err != nil {
		return ""
	}
	_, added, err := sts.DecodeKeysAdded(v)
	if err != nil {
		return ""
	}
	return stampText(added)
}

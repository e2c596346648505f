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
	waiting map[string]bool       // profiles in use that wait for a person
	wanted  map[cred.LinkKey]bool // by sign-in: whether a person has to
}

func (d *daemon) whatIsMissing() *whatIsMissing {
	m := &whatIsMissing{d: d, set: d.set(), locked: d.vault.Status().Locked, waiting: map[string]bool{}, wanted: map[cred.LinkKey]bool{}}
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
	wanted, known := m.wanted[shared.AskKey()]
	if !known {
		wanted = wantsSignIn(ctx, shared)
		m.wanted[shared.AskKey()] = wanted
	}
	if wanted {
		return login
	}
	return ""
}

// wantsSignIn reports whether it is known that a person has to sign in. No end
// that is known means so of no source: Identity Center's says itself whether
// somebody has signed in, since what can be refreshed has no end.
func wantsSignIn(ctx context.Context, s cred.SignInSource) bool {
	if sure, ok := s.(interface{ SignedIn(context.Context) bool }); ok {
		return !sure.SignedIn(ctx)
	}
	ends := s.SignInEnds(ctx)
	return !ends.IsZero() && ends.Before(time.Now())
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

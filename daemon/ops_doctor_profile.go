package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/ops"
	"keyfob/internal/source/rolesanywhere"
	"keyfob/profiles"
)

// oldPair is the age from which a pair of the vault is warned of.
const oldPair = 90 * 24 * time.Hour

// profilePart looks at the profile that was named, or at what is known of all
// of them without asking AWS.
func (x *checkup) profilePart(ctx context.Context) (out checks) {
	if x.profile == "" {
		x.everyProfile(ctx, &out)
		return out
	}
	prof, err := x.set().Resolve(x.query(x.p.Context))
	if err != nil {
		out.failed(groupProfile, "profile.resolves", unknownProfile(err)).About = x.profile
		return out
	}
	for _, w := range prof.Warnings {
		out.add(groupProfile, "profile.warning", control.CheckWarning, "%s", w).About = x.profile
	}
	if prof.Err != nil {
		out.failed(groupProfile, "profile.resolves", prof.Err).About = x.profile
		return out
	}
	var kinds []string
	for _, l := range prof.Chain {
		kinds = append(kinds, string(l.Kind))
	}
	out.add(groupProfile, "profile.resolves", control.CheckOK, "%s is %s", x.profile, strings.Join(kinds, ", then ")).About = x.profile
	x.certificates(ctx, &out, prof.Chain)
	if !x.p.Offline {
		x.device(ctx, &out, prof)
	}
	x.credentialsCheck(ctx, &out, prof)
	for i := range out {
		if out[i].About == "" {
			out[i].About = x.profile
		}
	}
	return out
}

// certificates tells when those end that a chain signs in with.
func (x *checkup) certificates(ctx context.Context, out *checks, chain []profiles.Link) {
	for _, l := range chain {
		if l.Kind != profiles.KindRolesAnywhere {
			continue
		}
		src, err := (*sources)(x.daemon).For(l)
		if err != nil {
			out.failed(groupProfile, "certificate", err)
			continue
		}
		with, ok := src.(interface {
			CertificateExpires(context.Context) (time.Time, bool)
		})
		if !ok {
			continue
		}
		if ends, ok := with.CertificateExpires(ctx); ok {
			out.certificate(l.Profile, ends)
		}
	}
}

func (k *checks) certificate(profile string, ends time.Time) {
	state, text := control.CheckOK, "the certificate of %s ends at %s"
	switch left := time.Until(ends); {
	case left <= 0:
		state, text = control.CheckFailed, "the certificate of %s ended at %s"
	case left < rolesanywhere.WarnBefore:
		state = control.CheckWarning
	}
	c := k.add(groupProfile, "certificate", state, text, profile, stampText(ends))
	c.About = profile
	if state != control.CheckOK {
		c.Hint = "put a new one in its place: keyfob reads it by itself"
	}
}

// device looks whether the user has the MFA device that the profile names.
func (x *checkup) device(ctx context.Context, out *checks, prof *profiles.Profile) {
	serial := ""
	for _, l := range prof.Chain {
		if serial = l.Params["mfa_serial"]; serial != "" {
			break
		}
	}
	read := x.longLived(prof.Chain)
	if serial == "" || read == nil {
		return
	}
	setting, _ := prof.Get("mfa_serial")
	skipped := func(why string) {
		out.add(groupProfile, "mfa.device", control.CheckSkipped, "whether the user has the MFA device %s is not known: %s", serial, why)
	}
	keys, err := read(ctx)
	if err != nil {
		skipped(trimCannot(oneText(err.Error())))
		return
	}
	have, err := x.listDevices(ctx, prof.Chain[0].Client, keys)
	switch {
	case err != nil:
		skipped(trimCannot(oneText(err.Error())))
	case slices.Contains(have, serial):
		out.add(groupProfile, "mfa.device", control.CheckOK, "the user has the MFA device %s", serial)
	default:
		k := out.add(groupProfile, "mfa.device", control.CheckFailed, "the user has no MFA device %s, which mfa_serial names", serial)
		k.File, k.Line = setting.Origin.File, setting.Origin.Line
		k.Hint = "the user has none: register one in IAM"
		if len(have) > 0 {
			k.Hint = "mfa_serial = " + have[0]
		}
	}
}

// credentialsCheck gets the profile's credentials where nobody need be asked,
// and asks AWS whose they are.
func (x *checkup) credentialsCheck(ctx context.Context, out *checks, prof *profiles.Profile) {
	r := x.request(x.c, x.p.Context, cred.ViaWhoami)
	r.MayAsk = false
	snap, held := x.broker.PeekFor(r)
	if err := x.check(r.Caller, r.Profile, r.Via); err != nil {
		out.add(groupProfile, "profile.credentials", control.CheckFailed, "keyfob's own rules do not give %s to this program", x.profile).Hint = "the rules stand in " + x.conf().ConfigFile
		return
	}
	switch {
	case held:
	case x.lockedByHand.Load():
		out.add(groupProfile, "profile.credentials", control.CheckSkipped, "keyfob is locked").Fix = "keyfob unlock"
		return
	case x.p.Offline:
		out.add(groupProfile, "profile.credentials", control.CheckSkipped, "%s has no session in memory, and nothing outside this machine is asked", x.profile)
		return
	case x.protected(r.Profile):
		out.add(groupProfile, "profile.credentials", control.CheckSkipped, "a person confirms each program that gets %s", x.profile).Fix = "keyfob whoami " + x.profile
		return
	default:
		if who := x.needsPerson(ctx, r, prof.Chain); who != "" {
			out.add(groupProfile, "profile.session", control.CheckWarning, "%s", who).Fix = "keyfob login " + x.profile
			return
		}
		var err error
		if snap, err = x.broker.Get(cred.Unattended(ctx), r); err != nil {
			e := x.wireError(err, "get credentials for "+x.profile)
			k := out.add(groupProfile, "profile.credentials", control.CheckFailed, "%s", e.Message)
			mends(k, e.Hint)
			return
		}
	}
	out.add(groupProfile, "profile.credentials", control.CheckOK, "%s has credentials until %s", x.profile, stampText(snap.AdvertisedExpiry(time.Now())))
	if x.p.Offline {
		out.add(groupProfile, "profile.identity", control.CheckSkipped, "nothing outside this machine is asked")
		return
	}
	x.identity(ctx, out, prof, snap)
}

// needsPerson says why a person is needed before the profile gives anything,
// "" where that is not so: no session of a link that asks is in the vault.
func (x *checkup) needsPerson(ctx context.Context, r cred.Request, chain []profiles.Link) string {
	keys, links, err := x.broker.Chain(r)
	if err != nil || len(links) != len(chain) {
		return "" // the broker's own answer says what is wrong
	}
	for i, l := range links {
		src, err := (*sources)(x.daemon).For(l)
		if err != nil {
			return ""
		}
		if s, ok := src.(cred.SignInSource); ok {
			if wantsSignIn(ctx, s) {
				return fmt.Sprintf("%s needs a sign-in (%s)", x.profile, l.Kind)
			}
			continue
		}
		if !src.Interactive() {
			continue
		}
		kept, err := x.vault.List(ctx, "session/"+keys[i].String())
		if err == nil && len(kept) == 0 {
			what := "a person"
			if l.Params["mfa_serial"] != "" {
				what = "an MFA code of " + l.Params["mfa_serial"]
			}
			return fmt.Sprintf("%s needs %s", x.profile, what)
		}
	}
	return ""
}

// identity asks AWS whose the credentials are, and what is wrong with them.
func (x *checkup) identity(ctx context.Context, out *checks, prof *profiles.Profile, snap *cred.Snapshot) {
	who, err := x.opsDeps().Whoami(ctx, ops.WhoamiRequest{Profile: x.profile, Chain: prof.Chain, Region: consoleRegion(x.p.Context, prof),
		Credentials: snap.Credentials, Keys: x.longLived(prof.Chain), KeysAdded: x.baseAdded(ctx, prof.Chain)})
	if err != nil {
		out.failed(groupProfile, "profile.identity", err)
		return
	}
	out.add(groupProfile, "profile.identity", control.CheckOK, "AWS knows %s as %s", x.profile, who.ARN)
	for i, w := range who.Warnings {
		text, fix, _ := strings.Cut(w, ": keyfob ")
		switch k := out.add(groupProfile, "identity."+who.Kinds[i], control.CheckWarning, "%s", text); {
		case fix != "":
			k.Fix = "keyfob " + fix
		case who.Kinds[i] == ops.WarnNoMFA:
			k.Hint = "register one in IAM, and: keyfob configure"
		}
	}
	if ops.LongLived(prof.Chain) && !slices.Contains(who.Kinds, ops.WarnKeyAge) {
		out.add(groupProfile, "key.age", control.CheckOK, "its long-lived keys are not old")
	}
}

// everyProfile tells of all profiles what is known here.
func (x *checkup) everyProfile(ctx context.Context, out *checks) {
	bad, empty := 0, 0
	all := x.listed()
	for _, l := range all {
		if l.Err == nil {
			continue
		}
		if l.Err.NoSource { // it may be there for its region alone
			empty++
			continue
		}
		if bad++; bad <= manyChecks {
			out.failed(groupProfile, "profile.resolves", l.Err).About = l.Name
		}
	}
	if bad > manyChecks {
		out.add(groupProfile, "profile.resolves", control.CheckFailed, "and %d more profiles do not work", bad-manyChecks).Fix = "keyfob list"
	}
	if works := len(all) - bad - empty; bad == 0 || works > 0 {
		out.add(groupProfile, "profiles", control.CheckOK, "%d of %d profiles have a source of credentials", works, len(all))
	}
	x.keyAges(ctx, out)
	for _, s := range x.broker.Sessions() {
		if s.RoleARN != "" {
			continue
		}
		switch {
		case s.NeedsPerson && s.EndsAt.IsZero():
			k := out.add(groupProfile, "profile.session", control.CheckWarning, "%s needs you", s.Profile)
			k.About, k.Fix = s.Profile, "keyfob login "+s.Profile
		case s.NeedsPerson:
			k := out.add(groupProfile, "profile.session", control.CheckWarning, "the session of %s needs you before %s", s.Profile, stampText(s.EndsAt))
			k.About, k.Fix = s.Profile, "keyfob login "+s.Profile
		case s.LastError != "":
			k := out.add(groupProfile, "profile.credentials", control.CheckFailed, "the last attempt to refresh %s failed: %s", s.Profile, control.Reason(oneText(s.LastError)))
			k.About, k.Fix = s.Profile, "keyfob doctor "+s.Profile
		}
		if !s.Certificate.IsZero() {
			out.certificate(s.Profile, s.Certificate)
		}
	}
	for _, p := range x.queue.Pending() {
		k := out.add(groupProfile, "interaction", control.CheckWarning, "a question about %s waits for you (%s)", p.Profile, p.Kind)
		if k.About, k.Fix = p.Profile, "keyfob login "+p.Profile; p.Kind == cred.AskConfirm {
			k.Fix = "keyfob answer " + p.ID
		}
	}
}

// keyAges warns of old pairs by the vault's dates.
func (x *checkup) keyAges(ctx context.Context, out *checks) {
	pairs, err := (*keyVault)(x.daemon).Pairs(ctx)
	if errors.Is(err, cred.ErrLocked) {
		out.add(groupProfile, "key.age", control.CheckSkipped, "how old the keys are stands in the vault, which is locked").Fix = "keyfob unlock"
		return
	}
	if err != nil {
		out.failed(groupProfile, "key.age", err)
		return
	}
	old, seen := 0, map[string]bool{}
	for _, name := range sortedNames(pairs) {
		p := pairs[name]
		age := time.Since(p.Added)
		if p.Added.IsZero() || age <= oldPair || seen[p.AccessKeyID] {
			continue
		}
		seen[p.AccessKeyID] = true
		if old++; old > manyChecks {
			continue
		}
		k := out.add(groupProfile, "key.age", control.CheckWarning, "the keys of %s have been in the vault for %d days", name, int(age.Hours()/24))
		k.About, k.Fix = name, "keyfob rotate "+name
	}
	switch {
	case old > manyChecks:
		out.add(groupProfile, "key.age", control.CheckWarning, "and %d more pairs are old", old-manyChecks).Fix = "keyfob rotate --due 90d"
	case old == 0 && len(pairs) > 0:
		out.add(groupProfile, "key.age", control.CheckOK, "no keys are known to have been in the vault for more than 90 days")
	}
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// joinedText is a list for a sentence.
func joinedText(list []string) string { return strings.Join(list, ", ") }

// joinedList is no_proxy as it would be with more in it.
func joinedList(env map[string]string, more []string) string {
	have := env["NO_PROXY"]
	if v := env["no_proxy"]; v != "" {
		have = v
	}
	if have == "" {
		return strings.Join(more, ",")
	}
	return have + "," + strings.Join(more, ",")
}

package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyfob/internal/broker"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/source/rolesanywhere"
)

// status tells how the daemon is. Who is no administrator is told of the
// profiles that the rules give him, and of nobody else's doings.
func (d *daemon) status(c *call) (any, error) {
	st := d.vault.Status()
	out := control.StatusResult{
		Version:       d.opt.Version,
		PID:           os.Getpid(),
		UptimeSeconds: int64(time.Since(d.started).Seconds()),
		Keystore:      control.KeystoreStatus{Backend: st.Backend, Locked: st.Locked, New: st.New},
		Endpoints:     []control.EndpointStatus{},
		Sessions:      []control.SessionStatus{},
		Interactions:  []control.InteractionStatus{},
		Warnings:      []string{},
	}
	if st.Err != nil && c.admin {
		out.Keystore.Error, out.Keystore.Hint = oneText(st.Err.Error()), d.vaultHint(st.Err)
	}
	d.endpointStatus(c, &out)
	d.sessionStatus(c, &out)
	for _, p := range d.queue.Pending() {
		if !d.mayAnswer(c, &p) {
			continue
		}
		it := control.InteractionStatus{ID: p.ID, Kind: p.Kind, Profile: p.Profile, Program: shortened(p.Question.Program),
			Since: stampText(p.Since), Expires: stampText(p.Expires), Waiting: p.Waiting}
		if p.Waiting > 0 { // else nobody listens at that address any more
			it.URL, it.UserCode = p.Question.URL, p.Question.UserCode
		}
		out.Interactions = append(out.Interactions, it)
	}
	if skew := time.Duration(d.skew.Load()); skew > time.Minute || skew < -time.Minute {
		out.Warnings = append(out.Warnings, skewText(skew))
	}
	if c.admin {
		d.ownWarnings(&out)
	}
	return out, nil
}

// longestProgram is what status shows of a program's path, whose length is
// its user's choice.
const longestProgram = 512

func shortened(s string) string {
	if len(s) <= longestProgram {
		return s
	}
	return strings.ToValidUTF8(s[:longestProgram], "") + "…"
}

// endpointStatus tells of the listeners.
func (d *daemon) endpointStatus(c *call, out *control.StatusResult) {
	for _, e := range d.endpoints() {
		profile := e.now.Load().Profile
		if !c.admin && e.kind == cred.ViaIMDS { // what he would get there
			via := cred.Endpoint{Kind: e.kind, Listen: e.address()}
			if profile = d.rules.Load().ProfileFor(c.caller.Caller, via); d.check(c.caller.Caller, profile, via) != nil {
				profile = ""
			}
		}
		out.Endpoints = append(out.Endpoints, control.EndpointStatus{Kind: e.kind, Listen: e.address(), Profile: profile})
	}
	if addr := d.exec.address(); addr != "" {
		out.Endpoints = append(out.Endpoints, control.EndpointStatus{Kind: cred.ViaContainer, Listen: addr, ForExec: true})
	}
}

// sessionStatus tells of the sessions.
func (d *daemon) sessionStatus(c *call, out *control.StatusResult) {
	for _, s := range d.broker.Sessions() {
		if !c.admin && (s.RoleARN != "" || !d.mayHaveProfile(c, s.Profile)) {
			continue
		}
		e := control.SessionStatus{Profile: s.Profile, AccessKeyID: s.AccessKeyID, AccountID: s.AccountID, Callers: s.Callers,
			Region: s.Region, RoleARN: s.RoleARN, Narrowed: s.Policy != "", Fetched: stampText(s.Fetched), Expiration: stampText(d.advertised(s)), NextRefresh: stampText(s.NextRefresh)}
		e.LastError = oneText(s.LastError)
		if !c.admin {
			e.Callers = 0 // the others are not his business
			if e.LastError != "" {
				// It may name files, and another's profile that shares a link.
				e.LastError = "the last attempt failed: " + adminKnows
			}
		}
		if s.NeedsPerson {
			e.NeedsPerson, e.EndsAt = true, stampText(s.EndsAt)
		}
		e.Certificate = stampText(s.Certificate)
		warnOfSession(out, &s)
		if !joined(out.Sessions, e) {
			out.Sessions = append(out.Sessions, e)
		}
	}
}

// warnOfSession tells what a person must do about a session: once, though
// several of a profile may be about it.
func warnOfSession(out *control.StatusResult, s *broker.Session) {
	warn := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(out.Warnings, text) {
			out.Warnings = append(out.Warnings, text)
		}
	}
	if s.NeedsPerson && !s.EndsAt.IsZero() {
		warn("the session of %s needs you before %s: keyfob login %s", s.Profile, stampText(s.EndsAt), s.Profile)
	}
	if !s.Certificate.IsZero() && time.Until(s.Certificate) < rolesanywhere.WarnBefore {
		warn("the certificate of %s ends at %s: put a new one in its place", s.Profile, stampText(s.Certificate))
	}
}

// joined adds e to the session that it is, if that is listed: callers who name
// a region in which nothing else is signed share one with those who don't.
func joined(list []control.SessionStatus, e control.SessionStatus) bool {
	for i := range list {
		s := &list[i]
		if e.AccessKeyID == "" || s.AccessKeyID != e.AccessKeyID || s.Profile != e.Profile || s.RoleARN != e.RoleARN || s.Narrowed != e.Narrowed {
			continue
		}
		s.Region = ""
		s.Callers += e.Callers
		if s.LastError == "" {
			s.LastError = e.LastError
		}
		if s.NextRefresh == "" || e.NextRefresh != "" && e.NextRefresh < s.NextRefresh {
			s.NextRefresh = e.NextRefresh
		}
		return true
	}
	return false
}

// ownWarnings tells what is wrong with the daemon's own things.
func (d *daemon) ownWarnings(out *control.StatusResult) {
	st := d.vault.Status()
	for _, name := range st.Corrupt {
		if d.replaced(name) {
			continue
		}
		out.Warnings = append(out.Warnings, "a corrupt record was set aside: "+name)
	}
	if a := d.audit.Load(); a != nil {
		if text := a.log.Warning(); text != "" {
			out.Warnings = append(out.Warnings, text)
		}
		if a.forward != nil && a.forward.Warning() != "" {
			out.Warnings = append(out.Warnings, a.forward.Warning())
		}
	}
	for _, rule := range d.conf().unjudged {
		out.Warnings = append(out.Warnings, "a rule refuses everybody: "+trimCannot(rule.Error()))
	}
	for _, e := range d.endpoints() {
		if text := e.now.Load().certificateWarning(time.Now()); text != "" {
			out.Warnings = append(out.Warnings, text)
		}
	}
	if st.Warning != "" {
		out.Warnings = append(out.Warnings, st.Warning)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out.Warnings = append(out.Warnings, d.tooWide()...)
	if d.reloadNotice != "" {
		out.Warnings = append(out.Warnings, d.reloadNotice)
	}
	if d.reloadErr != nil {
		out.ReloadError = oneText(d.reloadErr.Error())
	} else if err := d.files.Err(); err != nil {
		out.Warnings = append(out.Warnings, oneText(err.Error()))
	}
}

// advertised is the end of a session as every hand-out tells it.
func (d *daemon) advertised(s broker.Session) time.Time {
	now := time.Now()
	if snap, ok := d.broker.Peek(s.Profile); ok && snap.AccessKeyID == s.AccessKeyID {
		return snap.AdvertisedExpiry(now)
	}
	if s.Expires.IsZero() {
		return s.Expires
	}
	// Of a role or a region that was named: such sessions last longer than
	// the two minutes below which nothing is taken off.
	return (&cred.Snapshot{Credentials: cred.Credentials{Expires: s.Expires}, Fetched: s.Expires.Add(-time.Hour)}).AdvertisedExpiry(now)
}

// replaced reports whether the keys of a record that was set aside were
// added anew: then there is nothing to do about it.
func (d *daemon) replaced(corrupt string) bool {
	record, _, _ := strings.Cut(corrupt, ".corrupt-")
	if !strings.HasPrefix(record, "key+") {
		return false
	}
	_, err := os.Stat(filepath.Join(d.conf().DataDir, "vault", record))
	return err == nil
}

func skewText(skew time.Duration) string {
	side := "behind"
	if skew < 0 {
		side, skew = "ahead of", -skew
	}
	return fmt.Sprintf("the clock of this machine is %s %s AWS's", skew.Round(time.Second), side)
}

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyfob/internal/broker"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/source/rolesanywhere"
	"keyfob/profiles"
)

// call is one request on the control socket. The peer behind it has been
// judged: it is the daemon's own user.
type call struct {
	ctx    context.Context // ends with the connection
	caller cred.Request    // Caller alone is set
	params json.RawMessage
	conn   *conversation
}

// decode reads the parameters strictly enough to notice a typing error in
// a client, and loosely enough to serve a newer one: unknown members are
// ignored.
func decode[T any](c *call) (T, error) {
	var v T
	if len(c.params) == 0 {
		return v, nil
	}
	if err := json.Unmarshal(c.params, &v); err != nil {
		// The text of a decoding error can quote a value.
		return v, &control.Error{Code: control.CodeProtocol, Message: "cannot understand the request's parameters"}
	}
	return v, nil
}

// handler answers one method: a result to be encoded, or an error for
// wireError with what completes "cannot …".
type handler struct {
	what   string
	handle func(d *daemon, c *call) (any, error)
	// locked says that the method works while the vault is locked by hand.
	locked bool
}

// handlers is every method of the control socket. The peer check is the
// same for all and stands before the table is looked at.
var handlers = map[string]handler{
	control.MethodCredentials: {what: "get credentials", handle: (*daemon).credentials},
	control.MethodAdd:         {what: "add the keys", handle: (*daemon).add},
	control.MethodRemove:      {what: "remove the keys", handle: (*daemon).remove, locked: true},
	control.MethodList:        {what: "list the profiles", handle: (*daemon).list, locked: true},
	control.MethodExplain:     {what: "explain the profile", handle: (*daemon).explain, locked: true},
	control.MethodStatus:      {what: "tell the status", handle: (*daemon).status, locked: true},
	control.MethodLogin:       {what: "sign in", handle: (*daemon).login},
	control.MethodLogout:      {what: "sign out", handle: (*daemon).logout, locked: true},
	control.MethodLock:        {what: "lock the vault", handle: (*daemon).lock, locked: true},
	control.MethodUnlock:      {what: "unlock the vault", handle: (*daemon).unlockByHand, locked: true},
	control.MethodGrantAdd:    {what: "make the grant", handle: (*daemon).grantAdd},
	control.MethodGrantList:   {what: "list the grants", handle: (*daemon).grantList, locked: true},
	control.MethodGrantRemove: {what: "remove the grant", handle: (*daemon).grantRemove, locked: true},
	control.MethodStop:        {what: "stop the daemon", handle: (*daemon).stopByHand, locked: true},
	control.MethodReload:      {what: "reload", handle: (*daemon).reloadByHand, locked: true},
	control.MethodAnswer:      {what: "answer", handle: (*daemon).answerQuestion},
	control.MethodAudit:       {what: "read the audit log", handle: (*daemon).auditEntries, locked: true},
	control.MethodAuditVerify: {what: "verify the audit log", handle: (*daemon).auditVerify, locked: true},
	control.MethodConsole:     {what: "open the console", handle: (*daemon).console},
	control.MethodWhoami:      {what: "tell who that is", handle: (*daemon).whoami},
	control.MethodMFAAdd:      {what: "keep the seed", handle: (*daemon).mfaAdd},
	control.MethodMFAList:     {what: "list the MFA devices", handle: (*daemon).mfaList},
	control.MethodMFARemove:   {what: "remove the seed", handle: (*daemon).mfaRemove},
	control.MethodMFACode:     {what: "give a code", handle: (*daemon).mfaCode},
	control.MethodVersion:     {what: "tell the version", handle: (*daemon).version, locked: true},
}

// checkContext refuses a caller whose environment would make other tools
// see something else than what this daemon resolves (CONTRACT.md §2).
func (d *daemon) checkContext(c control.Context) error {
	differ := func(name, theirs, own string) error {
		hint := "unset " + name
		if theirs == "" {
			hint = "set " + name + " as it was when the daemon started"
		}
		return &control.Error{Code: control.CodeMismatch,
			Message: fmt.Sprintf("cannot answer for this environment: %s is %s here and %s for the running daemon", name, orUnset(theirs), orUnset(own)),
			Hint:    hint + ", or `keyfob stop` so that a daemon starts with yours"}
	}
	for _, f := range []struct{ name, own, without string }{
		{"AWS_CONFIG_FILE", d.conf().AWSConfigFile, d.conf().withoutEnv.AWSConfigFile},
		{"AWS_SHARED_CREDENTIALS_FILE", d.conf().AWSCredentials, d.conf().withoutEnv.AWSCredentials},
	} {
		theirs := c.Env[f.name]
		if theirs == "" {
			theirs = f.without
		}
		if !samePath(theirs, f.own) && !strings.HasPrefix(theirs, d.execDir()+string(os.PathSeparator)) {
			return differ(f.name, theirs, f.own)
		}
	}
	for name, theirs := range c.Env {
		if (strings.HasPrefix(name, "AWS_ENDPOINT_URL") || name == "AWS_CA_BUNDLE") && theirs != d.env[name] {
			return differ(name, theirs, d.env[name])
		}
	}
	for name, own := range d.env {
		if (strings.HasPrefix(name, "AWS_ENDPOINT_URL") || name == "AWS_CA_BUNDLE") && c.Env[name] == "" {
			return differ(name, "", own)
		}
	}
	if id := c.Env["AWS_ACCESS_KEY_ID"]; id != "" && !c.Named && id != d.env["AWS_ACCESS_KEY_ID"] && !d.issued.has(id) {
		return &control.Error{Code: control.CodeMismatch,
			Message: "cannot choose a profile: AWS_ACCESS_KEY_ID is set here and other tools would use it",
			Hint:    "unset AWS_ACCESS_KEY_ID, or name a profile"}
	}
	return nil
}

func orUnset(v string) string {
	if v == "" {
		return "unset"
	}
	return v
}

func samePath(a, b string) bool {
	if a == b {
		return true
	}
	sa, errA := os.Stat(a)
	sb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(sa, sb)
}

// request makes the broker's request of a caller's context.
func (d *daemon) request(c *call, p control.Context, via string) cred.Request {
	r := c.caller
	r.Profile, r.Implicit = p.Profile, !p.Named
	if r.Profile == "" {
		r.Profile, r.Implicit = d.conf().Profile, true
	}
	r.Region = p.Region
	if r.Region == "" {
		r.Region = p.RegionEnv
	}
	r.RoleARN = p.RoleARN
	r.MayAsk = p.MayAsk
	r.Via = cred.Endpoint{Kind: via}
	return r
}

// query is request for profiles, which keeps where each value came from.
func (d *daemon) query(p control.Context) profiles.Query {
	q := profiles.Query{Profile: p.Profile, Region: p.Region, RoleARN: p.RoleARN, CallerRegion: p.RegionEnv, CallerVar: p.RegionVar}
	switch {
	case p.Named:
		q.ProfileOrigin = profiles.Origin{Kind: profiles.FromFlag, Name: "--profile"}
	case p.ProfileVar != "":
		q.ProfileOrigin = profiles.Origin{Kind: profiles.FromEnvironment, Name: p.ProfileVar}
	default:
		q.ProfileOrigin = profiles.Origin{Kind: profiles.FromDefault, Name: "profile"}
	}
	if q.Profile == "" {
		q.Profile = d.conf().Profile
		if d.conf().ProfileFrom == d.conf().ConfigFile {
			q.ProfileOrigin = profiles.Origin{Kind: profiles.FromKeyfob, Name: "profile", File: d.conf().ConfigFile}
		}
	}
	return q
}

const (
	waitProcess = 55 * time.Second // CONTRACT.md §5
)

func (d *daemon) credentials(c *call) (any, error) {
	p, err := decode[control.CredentialsParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	via := p.Via
	if via != cred.ViaExec && via != cred.ViaEnv {
		via = cred.ViaProcess
	}
	d.freshProfiles(c.ctx)
	r := d.request(c, p.Context, via)
	if r.Policy, err = policyOf(p.SessionPolicy); err != nil {
		return nil, err
	}
	snap, err := d.getAsking(c, r)
	if err != nil {
		d.refusal(r, err)
		return nil, about(err, r.Profile)
	}
	d.issued.add(snap.AccessKeyID)
	d.handOut(r, snap, "")
	return control.CredentialsResult{
		Version:         1,
		AccessKeyID:     snap.AccessKeyID,
		SecretAccessKey: snap.SecretAccessKey.Reveal(),
		SessionToken:    snap.SessionToken.Reveal(),
		Expiration:      snap.AdvertisedExpiry(time.Now()).UTC().Format("2006-01-02T15:04:05Z"),
		AccountID:       snap.AccountID,
	}, nil
}

// getAsking is Get for a call behind which a person may be: what is in
// memory is handed out at once, and only where it is not the person is
// brought in and their going away is watched for.
func (d *daemon) getAsking(c *call, r cred.Request) (*cred.Snapshot, error) {
	if !d.lockedByHand.Load() {
		if snap := d.broker.Held(r); snap != nil {
			return snap, nil
		}
	}
	wait := waitProcess
	ctx := c.ctx
	if r.MayAsk {
		wait = d.conf().SignInTimeout
		watched, stop := c.conn.Watch(ctx)
		defer stop()
		ctx = watched
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer d.attach(c, r)()
	return d.Get(ctx, r)
}

// about names the profile where the error alone would not.
func about(err error, profile string) error {
	var e *control.Error
	if errors.As(err, &e) || strings.HasPrefix(err.Error(), "cannot ") {
		return err
	}
	return fmt.Errorf("cannot get credentials for %s: %w", profile, err)
}

// Get is the broker's Get behind the daemon's own gates: it counts the
// call and hands out nothing while the vault is locked by hand.
func (d *daemon) Get(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
	d.calls.Add(1)
	if d.lockedByHand.Load() {
		return nil, &cred.InteractionError{Kind: "unlock", Profile: r.Profile, Message: "cannot get credentials for " + r.Profile + ": keyfob is locked", Help: "keyfob unlock"}
	}
	if snap := d.broker.Held(r); snap != nil {
		return snap, nil
	}
	d.wish(r)
	return d.broker.Get(ctx, r)
}

func (d *daemon) explain(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	prof, err := d.readProfiles(d.conf(), d.vaultKeys(c.ctx)).Resolve(d.query(p.Context))
	if err != nil {
		return nil, unknownProfile(err)
	}
	x := prof.Explain()
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		path := d.conf().AWSConfigFile
		if name == "AWS_SHARED_CREDENTIALS_FILE" {
			path = d.conf().AWSCredentials
		}
		if _, err := os.Stat(path); d.env[name] != "" && errors.Is(err, os.ErrNotExist) {
			x.Warnings = append(x.Warnings, fmt.Sprintf("%s names %s, which does not exist", name, path))
		}
	}
	return x, nil
}

// unknownProfile gives the resolver's "no such profile" its code.
func unknownProfile(err error) error {
	var e *profiles.Error
	if errors.As(err, &e) && e.Unknown {
		return &control.Error{Code: control.CodeUnknownProfile, Message: sentence(e, "find the profile"), Hint: e.Hint()}
	}
	return err
}

func (d *daemon) list(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	p.Named = true // no profile is chosen here
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	d.freshProfiles(c.ctx)
	out := control.ListResult{Profiles: []control.ListEntry{}}
	for _, l := range d.listed() {
		e := control.ListEntry{Name: l.Name, Source: string(l.Source), Account: l.Account, Origins: []control.Origin{}}
		for _, o := range l.Origins {
			e.Origins = append(e.Origins, control.Origin{Kind: string(o.Kind), Name: o.Name, File: o.File, Line: o.Line})
		}
		if l.Err != nil {
			e.Error = oneText(l.Err.Error())
		}
		if s, ok := d.broker.Peek(l.Name); ok {
			e.Session = &control.ListSession{AccessKeyID: s.AccessKeyID, Expiration: stampText(s.AdvertisedExpiry(time.Now()))}
			if e.Account == "" {
				e.Account = s.AccountID
			}
		}
		out.Profiles = append(out.Profiles, e)
	}
	return out, nil
}

// listed are all profiles. They are made once for what was read: a chain is
// resolved anew for each profile on it.
func (d *daemon) listed() []profiles.Listed {
	d.mu.Lock()
	set := d.files
	d.mu.Unlock()
	d.listMu.Lock()
	defer d.listMu.Unlock()
	if d.listOf != set {
		d.listOf, d.lists = set, set.List()
	}
	return d.lists
}

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
	if st.Err != nil {
		out.Keystore.Error = oneText(st.Err.Error())
	}
	for _, e := range d.endpoints() {
		out.Endpoints = append(out.Endpoints, control.EndpointStatus{Kind: e.kind, Listen: e.address(), Profile: e.now.Load().Profile})
	}
	if addr := d.exec.address(); addr != "" {
		out.Endpoints = append(out.Endpoints, control.EndpointStatus{Kind: cred.ViaContainer, Listen: addr})
	}
	for _, s := range d.broker.Sessions() {
		e := control.SessionStatus{Profile: s.Profile, AccessKeyID: s.AccessKeyID, AccountID: s.AccountID, Callers: s.Callers,
			Expiration: stampText(d.advertised(s)), NextRefresh: stampText(s.NextRefresh)}
		e.LastError = oneText(s.LastError)
		if s.NeedsPerson {
			e.NeedsPerson, e.EndsAt = true, stampText(s.EndsAt)
			if !s.EndsAt.IsZero() {
				out.Warnings = append(out.Warnings, fmt.Sprintf("the session of %s needs you before %s: keyfob login %s", s.Profile, stampText(s.EndsAt), s.Profile))
			}
		}
		if !s.Certificate.IsZero() {
			e.Certificate = stampText(s.Certificate)
			if left := time.Until(s.Certificate); left < rolesanywhere.WarnBefore {
				out.Warnings = append(out.Warnings, fmt.Sprintf("the certificate of %s ends at %s: put a new one in its place", s.Profile, e.Certificate))
			}
		}
		out.Sessions = append(out.Sessions, e)
	}
	for _, p := range d.queue.Pending() {
		it := control.InteractionStatus{ID: p.ID, Kind: p.Kind, Profile: p.Profile, Program: p.Question.Program,
			Since: stampText(p.Since), Expires: stampText(p.Expires), Waiting: p.Waiting}
		if p.Waiting > 0 { // else nobody listens at that address any more
			it.URL, it.UserCode = p.Question.URL, p.Question.UserCode
		}
		out.Interactions = append(out.Interactions, it)
	}
	for _, name := range st.Corrupt {
		if d.replaced(name) {
			continue
		}
		out.Warnings = append(out.Warnings, "a corrupt record was set aside: "+name)
	}
	if a := d.audit.Load(); a != nil && a.log.Warning() != "" {
		out.Warnings = append(out.Warnings, a.log.Warning())
	}
	for _, rule := range d.conf().unjudged {
		out.Warnings = append(out.Warnings, "a rule refuses everybody: "+trimCannot(rule.Error()))
	}
	if st.Warning != "" {
		out.Warnings = append(out.Warnings, st.Warning)
	}
	if skew := time.Duration(d.skew.Load()); skew > time.Minute || skew < -time.Minute {
		out.Warnings = append(out.Warnings, skewText(skew))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reloadNotice != "" {
		out.Warnings = append(out.Warnings, d.reloadNotice)
	}
	if d.reloadErr != nil {
		out.ReloadError = oneText(d.reloadErr.Error())
	} else if err := d.files.Err(); err != nil {
		out.Warnings = append(out.Warnings, oneText(err.Error()))
	}
	return out, nil
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

func oneText(s string) string { return strings.Join(strings.Fields(s), " ") }

// stampText is RFC 3339 in UTC without fractions, "" for no time.
func stampText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

func (d *daemon) stopByHand(c *call) (any, error) {
	c.conn.afterReply = func() { d.stop(errStopped) }
	return control.Empty{}, nil
}

func (d *daemon) reloadByHand(c *call) (any, error) {
	notice, err := d.reload(c.ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot reload, what was read before stays: %w", err)
	}
	if notice != "" {
		_ = c.conn.WriteEvent(control.Event{ID: c.conn.id, Event: control.EventNotice, Notice: notice})
	}
	return control.Empty{}, nil
}

func (d *daemon) version(*call) (any, error) {
	exe, _ := os.Executable()
	return control.VersionResult{Version: d.opt.Version, Protocol: control.Version, PID: os.Getpid(), OnDemand: d.opt.OnDemand, Exe: exe, DataDir: d.conf().DataDir, ProfilesFile: d.conf().ProfilesFile}, nil
}

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// call is one request on the control socket. The peer behind it has been
// judged: it is the daemon's own user, or a user of the machine's daemon who
// may call this method (audience).
type call struct {
	ctx    context.Context // ends with the connection
	caller cred.Request    // Caller alone is set
	params json.RawMessage
	conn   *conversation
	// admin: the caller may see and do what concerns all users. It always is
	// so with a person's own daemon.
	admin bool
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

// handlers is every method of the control socket. Who may call it at a
// machine's daemon stands in audiences; both are looked at before a handler.
var handlers = map[string]handler{
	control.MethodCredentials:       {what: "get credentials", handle: (*daemon).credentials},
	control.MethodAdd:               {what: "add the keys", handle: (*daemon).add},
	control.MethodRemove:            {what: "remove the keys", handle: (*daemon).remove, locked: true},
	control.MethodList:              {what: "list the profiles", handle: (*daemon).list, locked: true},
	control.MethodExplain:           {what: "explain the profile", handle: (*daemon).explain, locked: true},
	control.MethodStatus:            {what: "tell the status", handle: (*daemon).status, locked: true},
	control.MethodLogin:             {what: "sign in", handle: (*daemon).login},
	control.MethodLogout:            {what: "sign out", handle: (*daemon).logout, locked: true},
	control.MethodLock:              {what: "lock the vault", handle: (*daemon).lock, locked: true},
	control.MethodUnlock:            {what: "unlock the vault", handle: (*daemon).unlockByHand, locked: true},
	control.MethodRecoveryKey:       {what: "make a recovery key", handle: (*daemon).recoveryKey},
	control.MethodGrantAdd:          {what: "make the grant", handle: (*daemon).grantAdd},
	control.MethodGrantList:         {what: "list the grants", handle: (*daemon).grantList, locked: true},
	control.MethodGrantRemove:       {what: "remove the grant", handle: (*daemon).grantRemove, locked: true},
	control.MethodStop:              {what: "stop the daemon", handle: (*daemon).stopByHand, locked: true},
	control.MethodReload:            {what: "reload", handle: (*daemon).reloadByHand, locked: true},
	control.MethodAnswer:            {what: "answer", handle: (*daemon).answerQuestion},
	control.MethodAudit:             {what: "read the audit log", handle: (*daemon).auditEntries, locked: true},
	control.MethodAuditVerify:       {what: "verify the audit log", handle: (*daemon).auditVerify, locked: true},
	control.MethodConsole:           {what: "open the console", handle: (*daemon).console},
	control.MethodWhoami:            {what: "tell who that is", handle: (*daemon).whoami},
	control.MethodMFAAdd:            {what: "keep the seed", handle: (*daemon).mfaAdd},
	control.MethodMFAList:           {what: "list the MFA devices", handle: (*daemon).mfaList},
	control.MethodMFARemove:         {what: "remove the seed", handle: (*daemon).mfaRemove},
	control.MethodMFACode:           {what: "give a code", handle: (*daemon).mfaCode},
	control.MethodVersion:           {what: "tell the version", handle: (*daemon).version, locked: true},
	control.MethodRotate:            {what: "rotate the keys", handle: (*daemon).rotate},
	control.MethodPolicy:            {what: "make the policy", handle: (*daemon).policy, locked: true},
	control.MethodDoctor:            {what: "look at the way", handle: (*daemon).doctor, locked: true},
	control.MethodSSOAccounts:       {what: "list the accounts", handle: (*daemon).ssoAccounts},
	control.MethodMFADevices:        {what: "list the MFA devices", handle: (*daemon).mfaDevices},
	control.MethodForeignKeys:       {what: "list the keys", handle: (*daemon).foreignKeys, locked: true},
	control.MethodImportKey:         {what: "import the keys", handle: (*daemon).importKey},
	control.MethodCertificateAdd:    {what: "add the certificate", handle: (*daemon).certificateAdd},
	control.MethodCertificateList:   {what: "list the certificates", handle: (*daemon).certificateList},
	control.MethodCertificateRemove: {what: "remove it", handle: (*daemon).certificateRemove},
}

// checkContext refuses a caller whose environment would make other tools
// see something else than what this daemon resolves (CONTRACT.md §2).
func (d *daemon) checkContext(c control.Context) error {
	if d.system() {
		return nil // nothing of a caller's environment counts (ignoreEnvironment)
	}
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
	if !c.admin {
		// A region changes nothing about the credentials, and each one would
		// be a session of its own for whoever asks.
		r.Region = ""
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
	snap, err := d.broker.Get(ctx, r)
	if err != nil && d.system() && errors.Is(err, cred.ErrConfig) && !d.isAdmin(r.Caller) {
		err = unusable(r.Profile) // at endpoints too
	}
	return snap, err
}

// unusable is what a user of a machine's daemon is told instead of an error
// of the settings, whose words may quote the machine's files.
func unusable(profile string) error {
	return cred.WithHint(fmt.Errorf("cannot get credentials for %s: %w", profile, cred.ErrConfig), adminKnows)
}

func (d *daemon) explain(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	give, err := d.listing.take(c.ctx)
	if err != nil {
		return nil, err
	}
	defer give()
	prof, err := d.readProfiles(d.conf(), d.vaultKeys(c.ctx)).Resolve(d.query(p.Context))
	if err != nil {
		return nil, unknownProfile(err)
	}
	x := prof.Explain()
	if !c.admin {
		redactExplanation(&x)
		return x, nil
	}
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
	give, err := d.listing.take(c.ctx)
	if err != nil {
		return nil, err
	}
	defer give()
	d.freshProfiles(c.ctx)
	out := control.ListResult{Profiles: []control.ListEntry{}}
	missing := d.whatIsMissing()
	for _, l := range d.listed() {
		if !d.mayHaveProfile(c, l.Name) {
			continue
		}
		e := control.ListEntry{Name: l.Name, Source: string(l.Source), Account: l.Account, Origins: []control.Origin{}}
		for _, o := range l.Origins {
			e.Origins = append(e.Origins, control.Origin{Kind: string(o.Kind), Name: o.Name, File: o.File, Line: o.Line})
		}
		if l.Err != nil {
			e.Error = oneText(l.Err.Error())
			if !c.admin {
				e.Error = adminKnows
			}
		}
		e.Missing = missing.of(c.ctx, l)
		if c.admin {
			e.KeyAdded = d.pairAdded(c.ctx, l.Name)
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

func (d *daemon) version(c *call) (any, error) {
	exe, _ := os.Executable()
	if !c.admin { // whose flags and variables mean his own daemon
		return control.VersionResult{Version: d.opt.Version, Protocol: control.Version, PID: os.Getpid()}, nil
	}
	return control.VersionResult{Version: d.opt.Version, Protocol: control.Version, PID: os.Getpid(), OnDemand: d.opt.OnDemand, Exe: exe, DataDir: d.conf().DataDir, ProfilesFile: d.conf().ProfilesFile}, nil
}

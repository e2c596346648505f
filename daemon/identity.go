package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/mfa"
	"keyfob/internal/ops"
	"keyfob/internal/source/loopback"
	"keyfob/profiles"
)

// opsDeps is what operations on identities work with.
func (d *daemon) opsDeps() ops.Deps {
	return ops.Deps{Pool: d.pool, Skew: d.setSkew, Federation: d.conf().FederationURL, Log: d.log}
}

// longLived reads the pair at the base of a chain; nil where it has none.
func (d *daemon) longLived(chain []profiles.Link) func(context.Context) (cred.Credentials, error) {
	if !ops.LongLived(chain) {
		return nil
	}
	return func(ctx context.Context) (cred.Credentials, error) {
		src, err := (*sources)(d).For(chain[0])
		if err != nil {
			return cred.Credentials{}, err
		}
		return src.Fetch(ctx, cred.Input{Profile: chain[0].Profile}) // a pair is read and nobody asked
	}
}

// resolved is what the profile of a request is, beside its credentials, by
// the files as they are now.
func (d *daemon) resolved(c *call, p control.Context) (*profiles.Profile, error) {
	d.freshProfiles(c.ctx)
	prof, err := d.set().Resolve(d.query(p))
	if err != nil {
		return nil, unknownProfile(err)
	}
	return prof, nil
}

// console makes an address that is signed in as the profile. Who may have the
// profile's credentials may have it, and it stands in the audit log as they do.
func (d *daemon) console(c *call) (any, error) {
	p, err := decode[control.ConsoleParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	prof, err := d.resolved(c, p.Context)
	if err != nil {
		return nil, err
	}
	policy, err := policyOf(p.SessionPolicy)
	if err != nil {
		return nil, err
	}
	r := d.request(c, p.Context, cred.ViaConsole)
	if p.SwitchRole {
		if prof.Err != nil {
			return nil, about(prof.Err, r.Profile)
		}
		if err := d.check(r.Caller, r.Profile, r.Via); err != nil {
			d.refusal(r, err)
			return nil, about(err, r.Profile)
		}
		link, err := d.opsDeps().SwitchRole(c.ctx, ops.ConsoleRequest{Profile: r.Profile, Chain: prof.Chain, Region: consoleRegion(p.Context, prof)})
		if err != nil {
			return nil, err
		}
		return control.ConsoleResult{SwitchRole: link}, nil
	}
	user := ops.IsUser(prof.Chain)
	if !user {
		r.Policy = policy // a user's session takes it by GetFederationToken
	}
	snap, err := d.getAsking(c, r)
	if err != nil {
		d.refusal(r, err)
		return nil, about(err, r.Profile)
	}
	_, chain, err := d.broker.Chain(r)
	if err != nil {
		return nil, about(err, r.Profile)
	}
	if user != ops.IsUser(chain) { // the files changed in between
		return nil, &control.Error{Code: control.CodeFailed, Message: "cannot open the console as " + r.Profile + ": its profile has just changed", Hint: "try again"}
	}
	q := ops.ConsoleRequest{Profile: r.Profile, Chain: chain, Region: consoleRegion(p.Context, prof), Service: p.Service, Duration: time.Duration(p.Duration) * time.Second,
		Credentials: snap.Credentials, Keys: d.longLived(chain), Person: d.person}
	if user {
		q.Policy = cred.SessionPolicy{Inline: p.Policy, ARNs: p.PolicyARNs}
	}
	link, err := d.opsDeps().Console(c.ctx, q)
	if errors.Is(err, ops.ErrInput) {
		return nil, &control.Error{Code: control.CodeUsage, Message: oneText(err.Error()), Hint: hintOf(err)}
	}
	if err != nil {
		return nil, err
	}
	if p.Open {
		if link.URL, err = d.behindRedirect(c, link.URL); err != nil {
			return nil, err
		}
	}
	given := *snap
	given.AccessKeyID, given.Expires = link.AccessKeyID, link.Ends
	d.handOut(r, &given, "")
	return control.ConsoleResult{URL: link.URL.Reveal(), SwitchRole: link.SwitchRole, Warning: link.Warning}, nil
}

// openWait is how long a browser may take to come for the console's address.
const openWait = time.Minute

// behindRedirect gives the console's address to one browser of the caller's
// user, by an address that is good once: in the arguments of the opener every
// user of the machine could read it.
func (d *daemon) behindRedirect(c *call, target cred.Secret) (cred.Secret, error) {
	r, err := loopback.Once(target.Reveal())
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot open the console: %w", err)
	}
	uid := c.caller.Caller.UID
	r.Log = d.log
	r.Allow = func(conn net.Conn) bool {
		who, err := d.peers.Of(conn)
		return err == nil && who.UID == uid
	}
	d.group.Go(func() error {
		ctx, cancel := context.WithTimeout(d.life, openWait)
		defer cancel()
		_ = r.Wait(ctx)
		return nil
	})
	return cred.NewSecret(r.URL()), nil
}

// consoleRegion is the region of the page: named, the caller's, the profile's.
func consoleRegion(p control.Context, prof *profiles.Profile) string {
	for _, region := range []string{p.Region, p.RegionEnv, prof.Region} {
		if region != "" {
			return region
		}
	}
	return ""
}

func (d *daemon) whoami(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	prof, err := d.resolved(c, p.Context)
	if err != nil {
		return nil, err
	}
	r := d.request(c, p.Context, cred.ViaWhoami)
	snap, err := d.getAsking(c, r)
	if err != nil {
		d.refusal(r, err)
		return nil, about(err, r.Profile)
	}
	_, chain, err := d.broker.Chain(r)
	if err != nil {
		return nil, about(err, r.Profile)
	}
	region := consoleRegion(p.Context, prof)
	who, err := d.opsDeps().Whoami(c.ctx, ops.WhoamiRequest{Profile: r.Profile, Chain: chain, Region: region, Credentials: snap.Credentials, Keys: d.longLived(chain), KeysAdded: d.baseAdded(c.ctx, chain)})
	if err != nil {
		return nil, err
	}
	return control.WhoamiResult{Profile: r.Profile, ARN: who.ARN, AccountID: who.AccountID, Alias: who.Alias, UserID: who.UserID, Region: region,
		Source: string(chain[0].Kind), Expiration: stampText(snap.AdvertisedExpiry(time.Now())), Warnings: who.Warnings}, nil
}

// device is the MFA device that a call names: by its serial number, or by the
// profile on whose chain it is.
func (d *daemon) device(c *call, p control.MFAParams) (string, error) {
	if err := d.checkContext(p.Context); err != nil {
		return "", err
	}
	if serial := strings.TrimSpace(p.Serial); serial != "" {
		return serial, nil
	}
	prof, err := d.resolved(c, p.Context)
	if err != nil {
		return "", err
	}
	for _, l := range prof.Chain {
		if serial := l.Params["mfa_serial"]; serial != "" {
			return serial, nil
		}
	}
	return "", &control.Error{Code: control.CodeFailed, Message: "cannot tell the MFA device of " + prof.Name + ": no mfa_serial applies to it",
		Hint: "name the device, or set mfa_serial in the profile"}
}

// deviceOf is the device of a call about the seeds in the vault, which is open
// then.
func (d *daemon) deviceOf(c *call) (p control.MFAParams, serial string, err error) {
	if p, err = decode[control.MFAParams](c); err == nil {
		serial, err = d.device(c, p)
	}
	if err == nil {
		err = d.store.wait(c.ctx)
	}
	return p, serial, err
}

func (d *daemon) mfaAdd(c *call) (any, error) {
	p, serial, err := d.deviceOf(c)
	if err != nil {
		return nil, err
	}
	codes, err := d.shared.mfa.Add(c.ctx, serial, cred.NewSecret(p.Seed), false)
	if errors.Is(err, mfa.ErrExists) {
		return nil, &control.Error{Code: control.CodeExists, Message: oneText(err.Error()), Hint: hintOf(err)}
	}
	if err != nil {
		return nil, err
	}
	d.log.WithField(logging.Method, control.MethodMFAAdd).WithField("serial", serial).Info("seed of an MFA device stored")
	return control.MFAAddResult{Serial: serial, Codes: []string{codes[0].Reveal(), codes[1].Reveal()}}, nil
}

func (d *daemon) mfaList(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	p.Named = true // no profile is chosen here
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	all, err := d.shared.mfa.List(c.ctx)
	if err != nil {
		return nil, err
	}
	out := control.MFAListResult{Devices: []control.MFADevice{}}
	for _, x := range all {
		if x.Err == nil { // status tells of the others
			out.Devices = append(out.Devices, control.MFADevice{Serial: x.Serial, Added: stampText(x.Added)})
		}
	}
	return out, nil
}

func (d *daemon) mfaRemove(c *call) (any, error) {
	_, serial, err := d.deviceOf(c)
	if err != nil {
		return nil, err
	}
	if err := d.shared.mfa.Remove(c.ctx, serial); err != nil {
		return nil, noDevice(err)
	}
	return control.Empty{}, nil
}

func (d *daemon) mfaCode(c *call) (any, error) {
	_, serial, err := d.deviceOf(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, waitProcess)
	defer cancel()
	code, err := d.shared.mfa.Code(ctx, serial)
	if err != nil {
		return nil, noDevice(err)
	}
	return control.MFACodeResult{Serial: serial, Code: code.Code.Reveal(), Seconds: max(0, int(time.Until(code.Ends)/time.Second))}, nil
}

// noDevice gives "no such seed" its code.
func noDevice(err error) error {
	if errors.Is(err, cred.ErrNotFound) {
		return &control.Error{Code: control.CodeNotFound, Message: oneText(err.Error()), Hint: hintOf(err)}
	}
	return err
}

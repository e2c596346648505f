package daemon

import (
	"context"
	"errors"
	"net/url"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/source/sso"
	"keyfob/profiles"
)

// listingWait is what a sign-in's time limit gets for the lists behind it.
const listingWait = 45 * time.Second

// ssoAccounts lists what a person may have at an Identity Center portal,
// which need not stand in any file yet. Where no session is valid the person
// behind the call signs in first; profiles made of the answer share that
// sign-in.
func (d *daemon) ssoAccounts(c *call) (any, error) {
	p, err := decode[control.SSOAccountsParams](c)
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
	client, err := d.bareClient()
	if err != nil {
		return nil, err
	}
	// Account and role are part of a link and not of its sign-in.
	link := profiles.Link{Kind: profiles.KindSSO, Profile: portalName(p), Client: client, Params: map[string]string{
		"sso_start_url": p.StartURL, "sso_region": p.Region, "sso_account_id": "000000000000", "sso_role_name": "none"}}
	if p.Session != "" {
		link.Params["sso_session"] = p.Session
	}
	if p.Scopes != "" {
		link.Params["sso_registration_scopes"] = p.Scopes
	}
	src, err := (*sources)(d).For(link)
	if err != nil {
		return nil, &control.Error{Code: control.CodeUsage, Message: sentence(err, "list the accounts"), Hint: hintOf(err)}
	}
	key := src.(cred.SignInSource).AskKey()
	in := cred.Input{Key: key, Profile: link.Profile, Ask: d.shared.mfa}
	watched, stop := c.conn.Watch(c.ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(watched, d.conf().SignInTimeout+listingWait)
	defer cancel()
	if p.MayAsk {
		in.Signin = &cred.Signin{Device: p.Device}
		d.queue.Reset(key)
		defer d.queue.Attach([]cred.LinkKey{key}, &terminal{conn: c.conn, place: c.caller.Caller.Terminal})()
	}
	all, err := sso.Assignments(ctx, link, d.ssoDeps(), in)
	var person *cred.InteractionError
	if errors.As(err, &person) && !p.MayAsk {
		return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot list the accounts: a person must sign in at " + p.StartURL,
			Hint: "run it in a terminal"}
	}
	if err != nil {
		return nil, err
	}
	out := control.SSOAccountsResult{Accounts: []control.SSOAccount{}}
	for _, a := range all {
		out.Accounts = append(out.Accounts, control.SSOAccount{ID: a.ID, Name: a.Name, Email: a.Email, Roles: a.Roles})
	}
	return out, nil
}

// portalName is how a portal is called in prompts and messages.
func portalName(p control.SSOAccountsParams) string {
	if p.Session != "" {
		return p.Session
	}
	if u, err := url.Parse(p.StartURL); err == nil && u.Host != "" {
		return u.Host
	}
	return "Identity Center"
}

// bareClient is the settings of a client for a profile of which the files
// say nothing: endpoints, CA bundle and the rest of the environment's.
func (d *daemon) bareClient() (profiles.Client, error) {
	const nobody = "a profile that no file has"
	set := d.readProfiles(d.conf(), map[string]profiles.VaultKey{nobody: {AccessKeyID: "-"}})
	p, err := set.Resolve(named(nobody))
	if err == nil && p.Err != nil {
		err = p.Err
	}
	if err != nil {
		return profiles.Client{}, err
	}
	return p.Chain[0].Client, nil
}

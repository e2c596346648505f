package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/mfa"
	"keyfob/internal/source/command"
	"keyfob/internal/source/login"
	"keyfob/internal/source/metadata"
	"keyfob/internal/source/oidc"
	"keyfob/internal/source/process"
	"keyfob/internal/source/rolesanywhere"
	"keyfob/internal/source/saml"
	"keyfob/internal/source/sso"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// shared is what the sources of one daemon share: the sign-ins that are
// under way, the programs that are run, the devices.
type shared struct {
	sso     *sso.Sessions
	oidc    *oidc.Sessions
	login   *login.Sessions
	devices *rolesanywhere.Devices
	run     *command.Runner
	mfa     *mfa.Ways
}

// openSources makes what the sources share. The vault and the queue are
// there.
func (d *daemon) openSources() {
	d.shared = shared{
		sso:     sso.NewSessions(),
		oidc:    oidc.NewSessions(),
		login:   login.NewSessions(),
		devices: rolesanywhere.NewDevices(),
		run:     command.New(command.Config{Environ: d.opt.Env, Timeout: d.conf().ProcessTimeout, Log: d.log}),
	}
	d.shared.mfa = mfa.New(mfa.Deps{
		Next:  (*asker)(d),
		Store: d.store,
		Run: func(ctx context.Context, name, line string) (cred.Secret, error) {
			return d.runProgram(ctx, command.Program{Name: name, Line: line})
		},
		Args: func(ctx context.Context, name string, args ...string) (cred.Secret, error) {
			return d.runProgram(ctx, command.Program{Name: name, Args: args})
		},
		Touch: func(_ context.Context, q cred.Question) {
			if d.notifier != nil {
				d.notifier.Notify("keyfob: touch your security key", "It makes the code of "+q.Serial+" for profile "+q.Profile+".")
			}
		},
		Skew: d.skewNow,
		Log:  d.log,
	})
}

// runProgram runs a program for a source.
func (d *daemon) runProgram(ctx context.Context, p command.Program) (cred.Secret, error) {
	if err := d.mayRunProgram(p); err != nil {
		return cred.Secret{}, err
	}
	return d.shared.run.Run(ctx, p)
}

// sources makes the source of each kind of link.
type sources daemon

// For returns the source of a link, or an error that names its kind.
func (s *sources) For(link profiles.Link) (cred.Source, error) {
	d := (*daemon)(s)
	if err := d.conf().mayRun(link); err != nil {
		return nil, err
	}
	switch link.Kind {
	case profiles.KindStaticKeys, profiles.KindEnvironmentKeys, profiles.KindSessionToken, profiles.KindAssumeRole:
		return sts.New(link, d.stsDeps())
	case profiles.KindWebIdentity, profiles.KindOIDC:
		return oidc.New(link, d.oidcDeps())
	case profiles.KindSSO:
		return sso.New(link, d.ssoDeps())
	case profiles.KindLogin:
		return login.New(link, d.loginDeps())
	case profiles.KindSAML:
		return saml.New(link, saml.Deps{Pool: d.pool, Commands: d.shared.run, Skew: d.setSkew, Log: d.log})
	case profiles.KindRolesAnywhere:
		return rolesanywhere.New(link, rolesanywhere.Deps{Store: d.store, Pool: d.pool, Log: d.log, Skew: d.setSkew, Devices: d.shared.devices,
			TPM: d.conf().TPMDevice, PKCS11Module: d.conf().PKCS11Module})
	case profiles.KindProcess:
		return process.New(link, process.Deps{Run: d.shared.run, Skew: d.skewNow, STS: d.stsDeps(), Log: d.log})
	case profiles.KindIMDS, profiles.KindContainer:
		return metadata.New(link, metadata.Deps{Own: d.ownAddress, Skew: d.skewNow})
	}
	return nil, fmt.Errorf("cannot use a source of kind %s in profile %s: this version has none: %w", link.Kind, link.Profile, cred.ErrConfig)
}

func (d *daemon) stsDeps() sts.Deps {
	return sts.Deps{Store: d.store, AllowRoot: d.rootAllowed, Skew: d.setSkew, Pool: d.pool, Log: d.log, Unattended: d.shared.mfa.Unattended, ProcessLimit: d.shared.run.Timeout, User: d.person}
}

func (d *daemon) oidcDeps() oidc.Deps {
	return oidc.Deps{Store: d.store, Sessions: d.shared.oidc, Pool: d.pool, Skew: d.setSkew, Log: d.log, User: d.person}
}

func (d *daemon) ssoDeps() sso.Deps {
	return sso.Deps{Store: d.store, Sessions: d.shared.sso, Pool: d.pool, Skew: d.setSkew, Log: d.log,
		CacheDir: sso.CacheDir(d.home()), ShareCache: func() bool { return d.conf().ShareSSOCache }}
}

func (d *daemon) loginDeps() login.Deps {
	return login.Deps{Store: d.store, Sessions: d.shared.login, Pool: d.pool, Skew: d.setSkew, Log: d.log,
		CacheDir: login.CacheDir(func(name string) string { return d.env[name] }, d.home()), Learned: d.learnedLogin}
}

// learnedLogin writes who has signed in for a profile that had no source
// into keyfob's own profiles file.
func (d *daemon) learnedLogin(ctx context.Context, profile, arn string) error {
	section := "profile " + profile
	if profile == "default" {
		section = "default"
	}
	if err := profiles.EditFile(d.conf().ProfilesFile, []profiles.Edit{{Section: section, Key: "login_session", Value: arn}}); err != nil {
		return err
	}
	d.freshProfiles(ctx)
	return nil
}

// renew makes the next fetch of each link sign in anew (login --force).
func (d *daemon) renew(keys []cred.LinkKey) {
	for _, k := range keys {
		d.shared.sso.Renew(k)
		d.shared.oidc.Renew(k)
		d.shared.login.Renew(k)
	}
}

// signOut ends the sign-ins that links come of, for all profiles that share
// them. Everything is tried.
func (d *daemon) signOut(ctx context.Context, links []profiles.Link) error {
	var errs []error
	for _, link := range links {
		var err error
		switch link.Kind {
		case profiles.KindSSO:
			err = sso.Logout(ctx, link, d.ssoDeps())
		case profiles.KindOIDC:
			err = oidc.Logout(ctx, link, d.oidcDeps())
		case profiles.KindLogin:
			err = login.Logout(ctx, link, d.loginDeps())
		}
		if err != nil {
			d.log.WithError(err).WithField(logging.Profile, link.Profile).Warn("the sign-in was not ended everywhere")
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ownAddress reports whether host:port is one of this daemon's endpoints,
// which must not be asked for credentials by the daemon itself.
func (d *daemon) ownAddress(addr string) bool {
	want, err := netip.ParseAddrPort(addr)
	if err != nil {
		return false
	}
	own := []string{d.exec.address()}
	for _, e := range d.endpoints() {
		own = append(own, e.address())
	}
	for _, text := range own {
		if have, err := netip.ParseAddrPort(text); err == nil && have.Port() == want.Port() &&
			(have.Addr().Unmap() == want.Addr().Unmap() || have.Addr().IsUnspecified()) {
			return true
		}
	}
	return false
}

func (d *daemon) home() string {
	if home := d.env["HOME"]; home != "" {
		return home
	}
	home, _ := os.UserHomeDir()
	return home
}

func (d *daemon) skewNow() time.Duration { return time.Duration(d.skew.Load()) }

func (d *daemon) setSkew(skew time.Duration) {
	d.skew.Store(int64(skew))
	d.broker.SetSkew(skew)
}

func decodeKeys(v cred.Secret) (cred.Credentials, error) { return sts.DecodeKeys(v) }

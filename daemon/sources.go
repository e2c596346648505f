package daemon

import (
	"fmt"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// sources makes the source of each kind of link.
type sources daemon

// For returns the source of a link, or an error that names its kind.
func (s *sources) For(link profiles.Link) (cred.Source, error) {
	switch link.Kind {
	case profiles.KindStaticKeys, profiles.KindEnvironmentKeys, profiles.KindSessionToken, profiles.KindAssumeRole:
		return sts.New(link, sts.Deps{
			Store:     s.store,
			AllowRoot: (*daemon)(s).rootAllowed,
			Skew:      (*daemon)(s).setSkew,
			Pool:      s.pool,
			Log:       s.log,
		})
	}
	return nil, fmt.Errorf("cannot use a source of kind %s in profile %s: this version has none: %w", link.Kind, link.Profile, cred.ErrConfig)
}

func (d *daemon) setSkew(skew time.Duration) {
	d.skew.Store(int64(skew))
	d.broker.SetSkew(skew)
}

func decodeKeys(v cred.Secret) (cred.Credentials, error) { return sts.DecodeKeys(v) }

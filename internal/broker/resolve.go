package broker

import (
	"errors"
	"fmt"
	"strconv"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// query is a profile and a variant.
type query struct {
	profile string
	variant variant
}

func queryOf(r *cred.Request) query { return query{r.Profile, variantOf(r)} }

// errNoProfiles: SetProfiles has not been called.
var errNoProfiles = fmt.Errorf("cannot resolve profiles yet: %w", cred.ErrUnavailable)

// resolve returns the chain of q, narrowed as q and the rules say. mu is held.
func (b *Broker) resolve(q query) (*profiles.Profile, error) {
	policy, err := b.policyOf(q)
	if err != nil {
		if _, known := b.chainOf(q, cred.SessionPolicy{}); errors.Is(known, cred.ErrUnknownProfile) {
			return nil, known
		}
		return nil, err
	}
	return b.chainOf(q, policy)
}

// chainOf returns the chain of q under a session policy. mu is held.
func (b *Broker) chainOf(q query, policy cred.SessionPolicy) (*profiles.Profile, error) {
	if b.resolver == nil {
		return nil, errNoProfiles
	}
	origin := profiles.Origin{Kind: profiles.FromFlag, Name: "--profile"}
	if q.variant.implicit {
		origin = profiles.Origin{Kind: profiles.FromEnvironment, Name: "AWS_PROFILE"}
	}
	p, err := b.resolver.Resolve(profiles.Query{
		Profile: q.profile, ProfileOrigin: origin, Region: q.variant.region, RoleARN: q.variant.role,
		PolicyInline: policy.Inline, PolicyARNs: policy.ARNs,
	})
	if err != nil {
		return nil, unknownProfile(q.profile, err)
	}
	if p.Err != nil {
		return nil, &fault{sentinel: cred.ErrConfig, err: p.Err}
	}
	if len(p.Chain) == 0 {
		return nil, &fault{sentinel: cred.ErrConfig, err: fmt.Errorf("cannot find a source of credentials for profile %s", q.profile)}
	}
	if !narrowed(&p.Chain[len(p.Chain)-1], policy) {
		return nil, &fault{sentinel: cred.ErrConfig, err: fmt.Errorf("cannot narrow profile %s by a session policy", q.profile)}
	}
	return p, nil
}

// keysOfProfile returns the keys of the chains by which a bare name is handed
// out, with the rules' session policy and without it: what can't carry the
// policy has links below that can be forgotten. A profile that does not
// resolve, or "", has none. mu is held.
func (b *Broker) keysOfProfile(profile string) map[cred.LinkKey]bool {
	keys := map[cred.LinkKey]bool{}
	if profile == "" || b.resolver == nil {
		return keys
	}
	for _, implicit := range []bool{false, true} {
		q := query{profile, variant{implicit: implicit}}
		for _, find := range []func(query) (*profiles.Profile, error){b.resolve, func(q query) (*profiles.Profile, error) {
			return b.chainOf(q, cred.SessionPolicy{})
		}} {
			if p, err := find(q); err == nil {
				for _, k := range keysOf(p.Chain) {
					keys[k] = true
				}
			}
		}
	}
	return keys
}

// unknownProfile gives a resolver's error its meaning and the nearest name
// as hint.
func unknownProfile(name string, err error) error {
	f := &fault{sentinel: cred.ErrUnknownProfile, err: err}
	var pe *profiles.Error
	if errors.As(err, &pe) {
		if !pe.Unknown {
			f.sentinel = cred.ErrConfig
		}
		if pe.Help == "" && pe.Nearest != "" {
			f.hint = "did you mean " + pe.Nearest + "?"
		}
	}
	return f
}

// keysOf computes the key of each link of a chain.
func keysOf(chain []profiles.Link) []cred.LinkKey {
	keys := make([]cred.LinkKey, len(chain))
	var below cred.LinkKey
	for i := range chain {
		below = keyOf(&chain[i], below)
		keys[i] = below
	}
	return keys
}

// keyOf computes a link's key from its kind, its parameters and those
// settings of its client that decide what it gets. How often a client
// retries decides nothing, so that a session outlives a change of it.
func keyOf(l *profiles.Link, below cred.LinkKey) cred.LinkKey {
	params := make(map[string]string, len(l.Params)+len(l.Client.EndpointURL)+5)
	for k, v := range l.Params {
		params["param."+k] = v
	}
	set := func(name, value string) {
		if value != "" {
			params["client."+name] = value
		}
	}
	flag := func(name string, on bool) {
		if on {
			set(name, strconv.FormatBool(on))
		}
	}
	c := &l.Client
	set("region", c.Region)
	set("ca_bundle", c.CABundle)
	flag("use_fips", c.UseFIPS)
	flag("use_dualstack", c.UseDualStack)
	flag("sts_legacy", c.STSLegacy)
	for service, url := range c.EndpointURL {
		set("endpoint_url."+service, url)
	}
	return cred.KeyOf(string(l.Kind), params, below)
}

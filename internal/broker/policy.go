package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// policyOf is the session policy that q's last link must carry: the
// request's, or that of the rules. Two that differ are an error, because AWS
// allows what either of two session policies allows. mu is held.
func (b *Broker) policyOf(q query) (cred.SessionPolicy, error) {
	asked, err := readPolicy(q.variant.policy)
	if err != nil {
		return asked, &fault{sentinel: cred.ErrConfig, err: fmt.Errorf("cannot narrow profile %s: %w", q.profile, err)}
	}
	if b.rules == nil {
		return asked, nil
	}
	ruled, err := readPolicy(b.rules.Policy(q.profile))
	switch {
	case err != nil:
		return ruled, &fault{sentinel: cred.ErrConfig, err: fmt.Errorf("cannot narrow profile %s as its rule says: %w", q.profile, err)}
	case empty(asked):
		return ruled, nil
	case !empty(ruled) && (ruled.Inline != asked.Inline || !slices.Equal(ruled.ARNs, asked.ARNs)):
		return asked, &fault{sentinel: cred.ErrConfig,
			err:  fmt.Errorf("cannot narrow profile %s by two session policies: its [[profile]] rule has another one than the endpoint, the grant or the command", q.profile),
			hint: "leave out the policy of the endpoint, the grant or the command: that of the rule holds at every exit"}
	}
	return asked, nil
}

func empty(p cred.SessionPolicy) bool { return p.Inline == "" && len(p.ARNs) == 0 }

// readPolicy decodes a policy into one form for all ways to write it, so that
// who asks for the same shares a session. A text that narrows nothing is an
// error: somebody meant it to.
func readPolicy(encoded string) (cred.SessionPolicy, error) {
	if encoded == "" {
		return cred.SessionPolicy{}, nil
	}
	p, err := cred.DecodePolicy(encoded)
	if err != nil {
		return p, errors.New("its session policy cannot be read") // the text may be anything
	}
	if empty(p) {
		return p, errors.New("its session policy says nothing")
	}
	var short bytes.Buffer
	if json.Compact(&short, []byte(p.Inline)) == nil {
		p.Inline = short.String() // what is no JSON is refused by the source, with its line
	}
	p.ARNs = slices.Clone(p.ARNs)
	slices.Sort(p.ARNs)
	p.ARNs = slices.Compact(p.ARNs)
	return p, nil
}

// narrowed reports whether the last link of a chain carries the policy,
// whoever resolved it.
func narrowed(last *profiles.Link, p cred.SessionPolicy) bool {
	if empty(p) {
		return true
	}
	return last.Params["session_policy_inline"] == p.Inline && last.Params["session_policy"] == "" &&
		last.Params["session_policy_arns"] == strings.Join(p.ARNs, ",")
}

// protected reports whether a person confirms each program that gets p, by
// the rules or by p's own setting. mu is held.
func (b *Broker) protected(p *profiles.Profile) bool {
	return p.Protected || b.rules != nil && b.rules.Protected(p.Name)
}

// mustConfirm reports whether a person's yes must be asked for before r gets
// what e has. The maker of a grant was asked; a login hands out nothing.
func mustConfirm(e *entry, r *cred.Request) bool {
	return e.protected && r.Grant == "" && r.Via.Kind != cred.ViaLogin
}

// confirm returns nil when a person says yes to r, or has said so before.
func (b *Broker) confirm(ctx context.Context, r *cred.Request) error {
	if b.cfg.Confirm == nil {
		return b.deny(r, errNoConfirm)
	}
	err := b.cfg.Confirm(ctx, *r)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cred.ErrDenied):
		return b.deny(r, err)
	case ctx.Err() != nil && interactionOf(err) == nil:
		return lateError(ctx, r.Profile)
	}
	return ownError(err, r.Profile)
}

// errNoConfirm: a protected profile where nobody is there to ask.
var errNoConfirm = errors.New("the profile is protected, and nobody can be asked")

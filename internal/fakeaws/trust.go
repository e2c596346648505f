package fakeaws

import (
	"strings"
	"time"
)

// refuses judges an AssumeRole: the caller's own permission, its session
// policy, and the role's trust policy. It returns the permission that is
// missing, "" for none.
func (r *role) refuses(who *principal, in *assumeInput) string {
	need := []string{"sts:AssumeRole"}
	if in.setsTags {
		need = append(need, "sts:TagSession")
	}
	if in.setsIdentity {
		need = append(need, "sts:SetSourceIdentity")
	}
	for _, action := range need {
		if who.denied(action) || !who.policy.allows(action, r.spec.ARN) {
			return action
		}
	}
	// The deepest refusal among the statements is told: a statement that
	// lets the role be assumed but not tagged misses sts:TagSession.
	missing := "sts:AssumeRole"
	statements := r.spec.Trust
	if statements == nil {
		statements = []Trust{{}}
	}
	for _, t := range statements {
		byName, ok := t.names(who)
		if !ok || t.Federated != nil || !t.holds(in) {
			continue
		}
		// In the same account a trust that names the principal itself is
		// enough; otherwise the principal's own policy must agree.
		if !(byName && who.account == r.spec.Account) && !who.mayAssume(r.spec.ARN) {
			continue
		}
		switch {
		case in.setsTags && t.NoTags:
			missing = "sts:TagSession"
		case in.setsIdentity && t.NoSourceIdentity:
			missing = "sts:SetSourceIdentity"
		default:
			return ""
		}
	}
	return missing
}

// refusesFederated judges the calls without a caller of their own: provider is
// the identity provider's ARN or the service's name, audience and subject what
// it vouches for. It reports whether no statement lets it in.
func (r *role) refusesFederated(provider, audience, subject string, in *assumeInput) bool {
	statements := r.spec.Trust
	if statements == nil {
		return false
	}
	for _, t := range statements {
		named := matchAny(t.Federated, provider) || contains(t.Principals, provider)
		if named && (t.Audiences == nil || contains(t.Audiences, audience)) && (t.Subjects == nil || matchAny(t.Subjects, subject)) &&
			!(t.NoTags && len(in.tags) > 0) && !(t.NoSourceIdentity && in.sourceIdentity != "") && t.holds(in) {
			return false
		}
	}
	return true
}

// names reports whether the statement's principals include the caller, and
// whether by the caller's own ARN.
func (t *Trust) names(who *principal) (byName, ok bool) {
	if len(t.Principals) == 0 {
		return false, true
	}
	for _, p := range t.Principals {
		switch {
		case p == who.arn, who.role != nil && p == who.role.spec.ARN:
			return true, true
		case p == "*", p == who.account, strings.HasSuffix(p, "::"+who.account+":root"):
			ok = true
		}
	}
	return false, ok
}

// holds judges the statement's conditions.
func (t *Trust) holds(in *assumeInput) bool {
	if t.ExternalIDs != nil && !contains(t.ExternalIDs, in.externalID) {
		return false
	}
	if (t.MFA || t.MFAMaxAge > 0) && in.mfaAt.IsZero() {
		return false
	}
	if t.MFAMaxAge > 0 && in.now.Sub(in.mfaAt) >= time.Duration(t.MFAMaxAge)*time.Second {
		return false
	}
	if t.SourceIdentities != nil && (in.sourceIdentity == "" || !matchAny(t.SourceIdentities, in.sourceIdentity)) {
		return false
	}
	if t.SessionNames != nil && !matchAny(t.SessionNames, in.sessionName) {
		return false
	}
	if t.TagKeys != nil {
		for k := range in.tags {
			if !contains(t.TagKeys, k) {
				return false
			}
		}
	}
	for k, pattern := range t.Tags {
		if v, ok := in.tags[k]; !ok || !match(pattern, v) {
			return false
		}
	}
	return true
}

package profiles

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// The shortest and longest session that a role can have
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html),
// and what is asked for when the profile does not say, in seconds.
const (
	minDuration     = 900
	maxDuration     = 43200
	roleDuration    = 3600
	sessionDuration = 43200
	chainedDuration = 3600 // of a role that is assumed with another role's session
)

// duration is the profile's duration_seconds, fallback when it is not set.
// It is decimal whatever its leading zeros.
func (v *view) duration(fallback int) (string, *Error) {
	f, ok := v.get("duration_seconds")
	if !ok {
		return strconv.Itoa(fallback), nil
	}
	bad := len(f.text) > 9
	for _, c := range f.text {
		bad = bad || c < '0' || c > '9'
	}
	n, err := strconv.Atoi(f.text)
	if bad || err != nil || n < minDuration || n > maxDuration {
		return "", v.badValue("duration_seconds", f, fmt.Sprintf("a number from %d to %d", minDuration, maxDuration))
	}
	return strconv.Itoa(n), nil
}

func (r *resolver) staticKeys(v *view, k *staticKeys) step {
	link := Link{Kind: KindStaticKeys, Profile: v.name, Origin: k.origin,
		Params: map[string]string{"aws_access_key_id": k.id, "layer": string(k.layer)}}
	if k.layer == FromKeystore {
		// while the vault is locked ids are unknown, and must not make two
		// profiles' keys look like one
		link.Params["profile"] = v.name
	} else {
		link.Secrets = &Keys{AccessKeyID: k.id, secret: k.secret, sessionToken: k.token}
	}
	return step{link, v}
}

// copyParams puts the keys that are set into params.
func (v *view) copyParams(params map[string]string, keys ...string) {
	for _, key := range keys {
		if f, ok := v.get(key); ok {
			params[key] = f.text
		}
	}
}

// sessionParams are what every kind that ends in a role can carry.
func (v *view) sessionParams(params map[string]string) {
	v.copyParams(params, "role_session_name", "session_policy_arns")
	if f, ok := v.get("session_policy"); ok {
		params["session_policy"] = v.fileBeside(f)
	}
}

// fileBeside is a path of a setting of ours: `~/` expanded, and relative to
// the file in which it stands.
func (v *view) fileBeside(f found) string {
	path := v.set.expandHome(f.text)
	if !filepath.IsAbs(path) && f.origin.File != "" {
		path = filepath.Join(filepath.Dir(f.origin.File), path)
	}
	return path
}

// assumeRole is the link of role_arn with a source below it.
func (r *resolver) assumeRole(v *view) (step, *Error) {
	role, _ := v.get("role_arn")
	link := Link{Kind: KindAssumeRole, Profile: v.name, RoleARN: role.text, Origin: role.origin,
		Params: map[string]string{"role_arn": role.text}}
	d, err := v.duration(roleDuration)
	if err != nil {
		return step{}, err
	}
	link.Params["duration_seconds"] = d
	v.sessionParams(link.Params)
	v.copyParams(link.Params, "external_id", "mfa_serial", "mfa_process", "source_identity")
	keys := map[string]bool{}
	if f, ok := v.get("session_tags"); ok {
		tags, err := parseTags(f.text)
		if err != nil {
			return step{}, fault(f.origin, "cannot use profile %s: %s: %v", v.name, said("session_tags", f), err)
		}
		for _, t := range tags {
			keys[t.key] = true
		}
		link.Params["session_tags"] = f.text
	}
	if f, ok := v.get("transitive_session_tags"); ok {
		link.Params["transitive_session_tags"] = f.text
		for _, key := range splitList(f.text) {
			if !keys[key] {
				r.warn("%s: transitive_session_tags names %s, which is no tag of session_tags", place(f.origin), key)
			}
		}
	}
	return step{link, v}, nil
}

// tag is a session tag.
type tag struct{ key, value string }

// parseTags reads the value of session_tags: `key=value,key=value`, white
// space around keys and values dropped.
func parseTags(s string) ([]tag, error) {
	var tags []tag
	seen := map[string]bool{}
	for _, part := range splitList(s) {
		key, value, ok := strings.Cut(part, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok || key == "":
			return nil, fmt.Errorf("tags are written key=value,key=value")
		case seen[strings.ToLower(key)]:
			return nil, fmt.Errorf("the tag %s stands there twice", key)
		}
		seen[strings.ToLower(key)] = true
		tags = append(tags, tag{key, strings.TrimSpace(value)})
	}
	return tags, nil
}

// splitList splits at commas and drops white space and empty parts.
func splitList(s string) []string {
	var parts []string
	for _, p := range strings.Split(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			parts = append(parts, p)
		}
	}
	return parts
}

// credentialSource is the base that credential_source names.
func (r *resolver) credentialSource(v *view, from found) ([]step, *Error) {
	link := Link{Profile: v.name, Origin: from.origin, Params: map[string]string{}}
	switch strings.ToLower(from.text) {
	case "environment":
		st, err := r.environmentKeys(v, from.origin)
		if err != nil {
			return nil, err
		}
		return []step{st}, nil
	case "ec2instancemetadata":
		link.Kind = KindIMDS
		for _, key := range []string{"ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode", "ec2_metadata_v1_disabled", "ec2_metadata_disabled"} {
			if f, ok := v.withEnvironment(key); ok {
				link.Params[key] = f.text
			}
		}
	case "ecscontainer":
		link.Kind = KindContainer
		for key, name := range map[string]string{"relative_uri": envContainerRel, "full_uri": envContainerFull, "authorization_token_file": envContainerFile} {
			if val := r.set.env.value(name); val != "" {
				link.Params[key] = val
			}
		}
		if token := r.set.env.value(envContainerToken); token != "" {
			link.Secrets = &Keys{sessionToken: token}
		}
	default:
		return nil, v.badValue("credential_source", from, "Environment, Ec2InstanceMetadata or EcsContainer")
	}
	return []step{{link, v}}, nil
}

// keyfobSources are the keys of keyfob's own kinds of source that are set,
// one a kind, and both of saml's.
func (v *view) keyfobSources() []string {
	var keys []string
	for _, kind := range [][]string{
		{"saml_url"}, {"saml_process"},
		{"oidc_issuer", "oidc_client_id"},
		{"roles_anywhere_trust_anchor_arn", "roles_anywhere_profile_arn", "roles_anywhere_certificate"},
	} {
		for _, key := range kind {
			if _, ok := v.get(key); ok {
				keys = append(keys, key)
				break
			}
		}
	}
	return keys
}

// roleSource is the setting that gives a role without another profile's
// credentials.
func (v *view) roleSource() (string, bool) {
	if _, ok := v.get("web_identity_token_file"); ok {
		return "web_identity_token_file", true
	}
	if keys := v.keyfobSources(); len(keys) > 0 {
		return keys[0], true
	}
	return "", false
}

// roleFrom is the link of such a setting.
func (r *resolver) roleFrom(v *view, key string, role found) (step, *Error) {
	f, _ := v.get(key)
	link := Link{Profile: v.name, RoleARN: role.text, Origin: f.origin, Params: map[string]string{}}
	if role.text != "" {
		link.Params["role_arn"] = role.text
	}
	v.sessionParams(link.Params)
	var needed []string
	switch {
	case key == "web_identity_token_file":
		link.Kind = KindWebIdentity
		link.Params[key] = r.set.expandHome(f.text)
	case strings.HasPrefix(key, "saml_"):
		link.Kind = KindSAML
		v.copyParams(link.Params, "saml_url", "saml_process", "principal_arn")
	case strings.HasPrefix(key, "oidc_"):
		link.Kind = KindOIDC
		needed = []string{"oidc_issuer", "oidc_client_id"}
		link.Params["oidc_scopes"] = "openid,offline_access"
		v.copyParams(link.Params, "oidc_issuer", "oidc_client_id", "oidc_scopes", "oidc_redirect_port")
		if port, ok := v.get("oidc_redirect_port"); ok {
			if n, err := strconv.Atoi(port.text); err != nil || n < 0 || n > 65535 {
				return step{}, v.badValue("oidc_redirect_port", port, "a port")
			}
		}
	default:
		link.Kind = KindRolesAnywhere
		needed = []string{"roles_anywhere_trust_anchor_arn", "roles_anywhere_profile_arn", "roles_anywhere_certificate"}
		v.copyParams(link.Params, needed[0], needed[1])
		for _, k := range []string{"roles_anywhere_certificate", "roles_anywhere_private_key", "roles_anywhere_intermediates"} {
			if f, ok := v.get(k); ok {
				if strings.HasPrefix(f.text, "vault:") || strings.HasPrefix(f.text, "pkcs11:") {
					link.Params[k] = f.text
				} else {
					link.Params[k] = v.fileBeside(f)
				}
			}
		}
	}
	for _, k := range needed {
		if _, ok := v.get(k); !ok {
			return step{}, fault(f.origin, "cannot use profile %s: %s needs %s", v.name, said(key, f), k)
		}
	}
	if _, set := v.get("duration_seconds"); set || link.Kind != KindSAML { // SAML's default is the assertion's
		d, err := v.duration(roleDuration)
		if err != nil {
			return step{}, err
		}
		link.Params["duration_seconds"] = d
	}
	return step{link, v}, nil
}

// anySSO is the first sso_* key that is set.
func (v *view) anySSO() (string, bool) {
	for _, key := range []string{"sso_session", "sso_start_url", "sso_account_id", "sso_role_name", "sso_region"} {
		if _, ok := v.get(key); ok {
			return key, true
		}
	}
	return "", false
}

// sessionMismatch refuses sso_* keys of a profile that its sso-session has
// otherwise, and a start URL or region that it does not have at all.
func (r *resolver) sessionMismatch(v *view) *Error {
	name, ok := v.get("sso_session")
	if !ok {
		return nil
	}
	session := r.set.ssoSession(name.text)
	if !session.exists() {
		return nil // told where it is used
	}
	r.touch(session)
	for _, key := range []string{"sso_start_url", "sso_region", "sso_registration_scopes", "sso_account_id", "sso_role_name"} {
		mine, ok := v.get(key)
		if !ok {
			continue
		}
		theirs, ok := session.get(key)
		switch {
		case ok && theirs.text != mine.text:
			return conflict(fmt.Sprintf("cannot use profile %s: %s differs from %s of [sso-session %s]", v.name, said(key, mine), said(key, theirs), name.text), mine.origin, theirs.origin)
		case !ok && (key == "sso_start_url" || key == "sso_region"):
			o := session.headerOrigin()
			return conflict(fmt.Sprintf("cannot use profile %s: %s stands beside sso_session, and [sso-session %s] (%s) has none", v.name, said(key, mine), name.text, place(o)), mine.origin, o).
				withHelp("put " + key + " into [sso-session " + name.text + "]")
		}
	}
	return nil
}

// sso is the link of SSO settings, nil when there are none that give
// credentials; incomplete then says why, if there are some.
func (r *resolver) sso(v *view) (st *step, incomplete, err *Error) {
	first, ok := v.anySSO()
	if !ok {
		return nil, nil, nil
	}
	account, hasAccount := v.get("sso_account_id")
	roleName, hasRole := v.get("sso_role_name")
	name, hasSession := v.get("sso_session")
	f, _ := v.get(first)
	if hasSession && !hasAccount && !hasRole {
		// a session alone gives tokens to programs that take those, not keys
		return nil, fault(f.origin, "cannot use profile %s: %s needs sso_account_id and sso_role_name", v.name, said(first, f)), nil
	}
	link := Link{Kind: KindSSO, Profile: v.name, Origin: f.origin, Params: map[string]string{}}
	get := v.get
	if hasSession {
		session := r.set.ssoSession(name.text)
		if !session.exists() {
			return nil, nil, fault(name.origin, "cannot use profile %s: %s names %s, and there is no [sso-session %s]", v.name, said("sso_session", name), quoteName(name.text), name.text)
		}
		link.Params["sso_session"] = name.text
		get = session.get
		for _, key := range []string{"sso_start_url", "sso_region"} {
			if _, ok := get(key); !ok {
				o := session.headerOrigin()
				return nil, nil, conflict(fmt.Sprintf("cannot use profile %s: [sso-session %s] (%s), which %s names, has no %s", v.name, name.text, place(o), said("sso_session", name), key), o, name.origin)
			}
		}
		if scopes, ok := get("sso_registration_scopes"); ok {
			link.Params["sso_registration_scopes"] = scopes.text
		}
	}
	for _, key := range []string{"sso_start_url", "sso_region"} {
		val, ok := get(key)
		if !ok {
			return nil, nil, fault(f.origin, "cannot use profile %s: %s needs %s", v.name, said(first, f), key)
		}
		link.Params[key] = val.text
	}
	if !hasAccount || !hasRole {
		lack := "sso_account_id"
		if hasAccount {
			lack = "sso_role_name"
		}
		return nil, nil, fault(f.origin, "cannot use profile %s: %s needs %s", v.name, said(first, f), lack)
	}
	link.Params["sso_account_id"], link.Params["sso_role_name"] = account.text, roleName.text
	return &step{link, v}, nil, nil
}

// sessionToken makes a session of long-lived keys where they would be handed
// out, or where an MFA code applies to the chain: it is spent there, once
// for all roles above.
func (r *resolver) sessionToken(steps []step) ([]step, *Error) {
	base := steps[0]
	if base.Kind == KindProcess && len(steps) == 1 {
		// What it prints may be long-lived keys, which are never handed out.
		base.Params["hand_out"] = "true"
	}
	longLived := base.Kind == KindStaticKeys || base.Kind == KindEnvironmentKeys
	if base.Secrets != nil && base.Secrets.sessionToken != "" {
		longLived = false
	}
	r.chainedRoles(steps, longLived)
	if !longLived {
		return steps, nil
	}
	ofProfile := base.Origin.Kind != FromEnvironment // the environment's own pair has no profile
	var mfa found
	var at *view
	for i, st := range steps {
		if i == 0 && !ofProfile {
			continue
		}
		f, ok := st.v.get("mfa_serial")
		switch {
		case !ok:
		case at == nil:
			mfa, at = f, st.v
		case f.text != mfa.text:
			r.warn("%s: mfa_serial is not used: the code of %s is spent for the whole chain", place(f.origin), place(mfa.origin))
		}
	}
	for i := 1; i < len(steps); i++ {
		delete(steps[i].Params, "mfa_serial")
		delete(steps[i].Params, "mfa_process")
	}
	if at == nil && len(steps) > 1 {
		return steps, nil
	}
	link := Link{Kind: KindSessionToken, Profile: base.Profile, Origin: base.Origin, Params: map[string]string{"duration_seconds": strconv.Itoa(sessionDuration)}}
	if base.Kind == KindStaticKeys {
		d, err := base.v.duration(sessionDuration)
		if err != nil {
			return steps, err
		}
		link.Params["duration_seconds"] = d
	}
	if at != nil {
		link.Origin = mfa.origin
		link.Params["mfa_serial"] = mfa.text
		if f, ok := base.v.get("mfa_process"); ok && ofProfile {
			link.Params["mfa_process"] = f.text
		} else if f, ok := at.get("mfa_process"); ok {
			link.Params["mfa_process"] = f.text
		}
	}
	return append([]step{base, {link, base.v}}, steps[1:]...), nil
}

// chainedRoles warns of a duration that AWS refuses: a role's session
// assumes another role for an hour at most.
func (r *resolver) chainedRoles(steps []step, longLived bool) {
	for i, st := range steps {
		if i == 0 || i == 1 && longLived || st.Kind != KindAssumeRole {
			continue
		}
		if i == 1 && (steps[0].Kind == KindStaticKeys || steps[0].Kind == KindEnvironmentKeys || steps[0].Kind == KindProcess) {
			continue // what these sessions are is unknown
		}
		if n, _ := strconv.Atoi(st.Params["duration_seconds"]); n > chainedDuration {
			if f, ok := st.v.get("duration_seconds"); ok {
				r.warn("%s: AWS limits a role that is assumed with another role's session to %d seconds", place(f.origin), chainedDuration)
			}
		}
	}
}

// clients resolves each link's client.
func (r *resolver) clients(steps []step, q Query) *Error {
	resolved := map[*view]Client{}
	for i := range steps {
		st := &steps[i]
		switch st.Kind {
		case KindIMDS, KindContainer:
			continue // these call no service of AWS
		}
		c, ok := resolved[st.v]
		if !ok {
			var err *Error
			if c, err = st.v.client(); err != nil {
				return err
			}
			resolved[st.v] = c
		}
		last := i == len(steps)-1 && i > 0 && st.Kind == KindAssumeRole
		switch {
		case st.Kind == KindSSO:
			c.Region = st.Params["sso_region"]
		case st.Kind == KindRolesAnywhere:
			if region := arnField(st.Params["roles_anywhere_trust_anchor_arn"], 3); region != "" {
				c.Region = region
			}
		case last && q.Region != "":
			c.Region = q.Region
		case last && q.CallerRegion != "":
			c.Region = q.CallerRegion
		}
		if c.Region == "" {
			c.Region = defaultRegion(steps[i:])
		}
		st.Client = c
	}
	return nil
}

// defaultRegion is where STS is called without any region: in the partition
// of the first ARN above.
func defaultRegion(above []step) string {
	for _, st := range above {
		for _, arn := range []string{st.RoleARN, st.Params["mfa_serial"], st.Params["login_session"]} {
			if region := partitionRegion(arn); region != "" {
				return region
			}
		}
	}
	return partitionRegions["aws"]
}

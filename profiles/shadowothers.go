package profiles

import "slices"

// ---- JavaScript: @aws-sdk/credential-provider-node defaultProvider, and
// credential-provider-ini resolveProfileData. An empty value is no value
// (@smithy/core parseIni).

func jsModel(w *shadowWorld) (shadowChain, *refusal) {
	hasEnv := w.env[envAccessKeyID] != "" && w.env[envSecretKey] != ""
	if !w.chosen && hasEnv {
		return w.envKeys(envAccessKeyID), nil
	}
	if w.chosen && hasEnv {
		w.note("the keys of the environment are passed over, because AWS_PROFILE is set")
	}
	p := w.read(w.profile)
	chain, err, final := w.jsProfile(p, nil)
	if err == nil || final {
		return chain, err
	}
	// fromProcess, fromTokenFile, remoteProvider
	why := err
	if line, ok := p.get("credential_process"); ok {
		chain, err = p.process(line), nil
	} else if w.env[envTokenFile] != "" && w.env[envRoleARN] != "" {
		chain, err = w.envWebIdentity(), nil
	} else if chain, err = w.remote(); err != nil {
		return chain, why
	}
	w.note("the profile gives nothing (%s), so the next source is used", why.why)
	return chain, err
}

// jsProfile is resolveProfileData; final says that an error ends the search.
func (w *shadowWorld) jsProfile(p *sdkProfile, visited []string) (chain shadowChain, err *refusal, final bool) {
	id, hasID := p.get("aws_access_key_id")
	_, hasSecret := p.get("aws_secret_access_key")
	static := hasID && hasSecret
	role, hasRole := p.get("role_arn")
	source, hasSource := p.get("source_profile")
	named, hasNamed := p.get("credential_source")
	switch {
	case len(visited) > 0 && static:
		return p.static(id), nil, false
	case hasRole && hasSource != hasNamed:
		return w.jsRole(p, role, source, named, visited)
	case static:
		return p.static(id), nil, false
	}
	if _, token := p.get("web_identity_token_file"); token && hasRole {
		return shadowChain{links: []ExplainedLink{p.role(KindWebIdentity, role)}}, nil, false
	}
	if line, ok := p.get("credential_process"); ok {
		return p.process(line), nil, false
	}
	if _, at, ok := p.first(ssoKeys...); ok {
		if err := p.ssoComplete(); err != nil {
			return chain, err, true
		}
		return shadowChain{links: []ExplainedLink{p.link(KindSSO, at.origin)}}, nil, false
	}
	if login, ok := p.get("login_session"); ok {
		return shadowChain{links: []ExplainedLink{p.link(KindLogin, login.origin)}}, nil, false
	}
	if !p.exists() {
		return chain, missing(p.name), false
	}
	return chain, &refusal{why: "profile " + quoteName(p.name) + " has no credentials that it knows"}, false
}

// jsRole is resolveAssumeRoleCredentials.
func (w *shadowWorld) jsRole(p *sdkProfile, role, source, named found, visited []string) (chain shadowChain, err *refusal, final bool) {
	switch {
	case source.text != "" && slices.Contains(visited, source.text):
		return chain, &refusal{"its source profiles form a cycle", source.origin}, false
	case source.text != "":
		chain, err, final = w.jsProfile(w.read(source.text), append(slices.Clip(visited), source.text))
	case named.text == "Ec2InstanceMetadata":
		chain, err = w.imds(named.origin)
	case named.text == "EcsContainer":
		chain, err = w.container(named.origin)
	case named.text != "Environment":
		err = &refusal{"credential_source has a value that it does not know", named.origin}
	case w.env[envAccessKeyID] == "" || w.env[envSecretKey] == "":
		err = &refusal{"the environment has no keys", named.origin}
	default:
		chain = w.envKeys(envAccessKeyID)
	}
	if err != nil {
		return chain, err, final
	}
	if f, ok := p.get("mfa_serial"); ok {
		return chain, &refusal{"it asks nobody for an MFA code: a program has to bring an mfaCodeProvider", f.origin}, true
	}
	return chain.with(p.role(KindAssumeRole, role)), nil, false
}

// ---- Java: DefaultCredentialsProvider and ProfileCredentialsUtils. What a
// provider throws makes the chain try the next one, so that nothing about a
// profile is ever told.

func javaModel(w *shadowWorld) (shadowChain, *refusal) {
	if w.env[envAccessKeyID] != "" && w.env[envSecretKey] != "" {
		return w.envKeys(envAccessKeyID), nil
	}
	if w.env[envTokenFile] != "" && w.env[envRoleARN] != "" {
		return w.envWebIdentity(), nil
	}
	chain, why := w.javaProfile(w.read(w.profile), nil)
	if why == nil {
		return chain, nil
	}
	chain, err := w.remote()
	if err != nil {
		return chain, why
	}
	w.note("the profile gives nothing (%s), so the next source is used", why.why)
	return chain, nil
}

// javaProfile is credentialsProviderWithFeatureID.
func (w *shadowWorld) javaProfile(p *sdkProfile, children []string) (shadowChain, *refusal) {
	role, hasRole := p.has("role_arn")
	if _, token := p.has("web_identity_token_file"); token && hasRole {
		return shadowChain{links: []ExplainedLink{p.role(KindWebIdentity, role)}}, nil
	}
	for _, key := range ssoKeys {
		if at, ok := p.has(key); ok {
			if err := p.ssoComplete(); err != nil {
				return shadowChain{}, err
			}
			if hasRole {
				w.note("%s: the sso_* keys of a profile win over its role", said("role_arn", role))
			}
			return shadowChain{links: []ExplainedLink{p.link(KindSSO, at.origin)}}, nil
		}
	}
	source, hasSource := p.has("source_profile")
	named, hasNamed := p.has("credential_source")
	if hasRole && hasSource && hasNamed {
		return shadowChain{}, &refusal{"source_profile and credential_source exclude each other", named.origin}
	}
	if hasRole && (hasSource || hasNamed) {
		return w.javaRole(p, role, source, named, children)
	}
	if login, ok := p.has("login_session"); ok {
		return shadowChain{links: []ExplainedLink{p.link(KindLogin, login.origin)}}, nil
	}
	if line, ok := p.has("credential_process"); ok {
		if id, keys := p.has("aws_access_key_id"); keys {
			w.note("%s: credential_process wins over keys in the files", said("aws_access_key_id", id))
		}
		return p.process(line), nil
	}
	if id, ok := p.has("aws_access_key_id"); ok {
		if _, whole := p.has("aws_secret_access_key"); !whole {
			return shadowChain{}, &refusal{"half a key pair", id.origin}
		}
		return p.static(id), nil
	}
	if !p.exists() {
		return shadowChain{}, missing(p.name)
	}
	return shadowChain{}, &refusal{why: "profile " + quoteName(p.name) + " has no credentials that it knows"}
}

func (w *shadowWorld) javaRole(p *sdkProfile, role, source, named found, children []string) (chain shadowChain, err *refusal) {
	switch {
	case source.text != "" && slices.Contains(children, p.name):
		return chain, &refusal{"its source profiles form a cycle", source.origin} // itself too
	case source.text != "":
		below := w.read(source.text)
		if !below.exists() {
			return chain, &refusal{"source_profile names a profile that is in neither file", source.origin}
		}
		if chain, err = w.javaProfile(below, append(slices.Clip(children), p.name)); err != nil {
			return chain, err
		}
	case named.text == "Ec2InstanceMetadata":
		chain, err = w.imds(named.origin)
	case named.text == "EcsContainer":
		chain, err = w.container(named.origin)
	case named.text == "Environment" && w.env[envAccessKeyID] != "" && w.env[envSecretKey] != "":
		chain = w.envKeys(envAccessKeyID)
	default:
		err = &refusal{"credential_source names nothing that it can use", named.origin}
	}
	if err != nil {
		return chain, err
	}
	// StsProfileCredentialsProviderFactory reads role_arn, role_session_name
	// and external_id.
	w.mfa(p, "it is not used: the role is asked for without a code")
	return chain.with(p.role(KindAssumeRole, role)), nil
}

// ---- Rust: aws-config default_provider/credentials.rs, and
// profile/credentials/repr.rs.

func rustModel(w *shadowWorld) (shadowChain, *refusal) {
	if w.env[envAccessKeyID] != "" && w.env[envSecretKey] != "" {
		return w.envKeys(envAccessKeyID), nil
	}
	chain, why, next := w.rustProfile()
	if why == nil || !next {
		return chain, why
	}
	if w.env[envTokenFile] != "" && w.env[envRoleARN] != "" {
		return w.envWebIdentity(), nil
	}
	return w.remote()
}

// rustProfile is resolve_chain; next says that the default chain goes on to
// its next source.
func (w *shadowWorld) rustProfile() (chain shadowChain, why *refusal, next bool) {
	first := w.read(w.profile)
	if !first.exists() {
		empty := len(w.set.files[credentialsFile].profiles)+len(w.set.files[configFile].profiles) == 0
		return chain, missing(w.profile), empty || w.profile == "default"
	}
	var roles []ExplainedLink
	var visited []string
	for p := first; ; {
		if slices.Contains(visited, p.name) {
			return chain, &refusal{why: "its source profiles form a cycle"}, false
		}
		visited = append(visited, p.name)
		if len(visited) > 1 {
			if id, ok := p.has("aws_access_key_id"); ok {
				if _, ok := p.has("aws_secret_access_key"); ok {
					chain = p.static(id)
					break
				}
			}
		}
		role, hasRole := p.has("role_arn")
		if _, token := p.has("web_identity_token_file"); token || !hasRole {
			if chain, why, next = w.rustBase(p); why != nil {
				return chain, why, next && len(visited) == 1
			}
			break
		}
		source, hasSource := p.has("source_profile")
		named, hasNamed := p.has("credential_source")
		switch {
		case hasSource && hasNamed:
			return chain, &refusal{"source_profile and credential_source exclude each other", named.origin}, false
		case !hasSource && !hasNamed:
			return chain, &refusal{"role_arn needs source_profile or credential_source", role.origin}, false
		}
		// repr.rs, RoleArn: role_arn, external_id, role_session_name
		w.mfa(p, "it is not used: the role is asked for without a code")
		roles = append(roles, p.role(KindAssumeRole, role))
		if hasNamed || source.text == p.name {
			if chain, why, _ = w.rustBase(p); why != nil {
				return chain, why, false
			}
			break
		}
		if p = w.read(source.text); !p.exists() {
			return chain, &refusal{"source_profile names a profile that is in neither file", source.origin}, false
		}
	}
	for _, r := range slices.Backward(roles) {
		chain = chain.with(r)
	}
	return chain, nil, false
}

// rustBase is base_provider.
func (w *shadowWorld) rustBase(p *sdkProfile) (chain shadowChain, why *refusal, next bool) {
	if named, ok := p.has("credential_source"); ok {
		switch named.text {
		case "Ec2InstanceMetadata":
			chain, why = w.imds(named.origin)
		case "EcsContainer":
			chain, why = w.container(named.origin)
		case "Environment":
			if w.env[envAccessKeyID] == "" || w.env[envSecretKey] == "" {
				return chain, &refusal{"the environment has no keys", named.origin}, false
			}
			chain = w.envKeys(envAccessKeyID)
		default:
			why = &refusal{"credential_source has a value that it does not know", named.origin}
		}
		return chain, why, false
	}
	role, hasRole := p.has("role_arn")
	if token, ok := p.has("web_identity_token_file"); ok {
		if !hasRole {
			return chain, &refusal{"web_identity_token_file without a role", token.origin}, false
		}
		return shadowChain{links: []ExplainedLink{p.role(KindWebIdentity, role)}}, nil, false
	}
	for _, key := range ssoKeys {
		at, ok := p.has(key)
		if !ok {
			continue
		}
		if _, named := p.has("sso_session"); named {
			for _, k := range []string{"sso_start_url", "sso_region"} {
				if f, ok := p.has(k); ok {
					return chain, &refusal{k + " beside sso_session may stand in the session's section alone", f.origin}, false
				}
			}
		}
		if why := p.ssoComplete(); why != nil {
			return chain, why, false
		}
		return shadowChain{links: []ExplainedLink{p.link(KindSSO, at.origin)}}, nil, false
	}
	if login, ok := p.has("login_session"); ok {
		return shadowChain{links: []ExplainedLink{p.link(KindLogin, login.origin)}}, nil, false
	}
	if line, ok := p.has("credential_process"); ok {
		if id, keys := p.has("aws_access_key_id"); keys {
			w.note("%s: credential_process wins over keys in the files", said("aws_access_key_id", id))
		}
		return p.process(line), nil, false
	}
	id, hasID := p.has("aws_access_key_id")
	_, hasSecret := p.has("aws_secret_access_key")
	switch {
	case hasID && hasSecret:
		return p.static(id), nil, false
	case hasID || hasSecret:
		return chain, &refusal{"half a key pair", id.origin}, false
	}
	return chain, &refusal{why: "profile " + quoteName(p.name) + " has no credentials that it knows"}, true
}

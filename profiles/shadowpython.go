package profiles

// ---- botocore: credentials.py, create_credential_resolver and its providers

func botocoreModel(w *shadowWorld) (shadowChain, *refusal) {
	return w.botocore()
}

// cliModel: the AWS CLI v2 carries a botocore of its own, with the same
// order; `aws --profile P` leaves the environment's keys out
// (create_credential_resolver, disable_env_vars).
func cliModel(w *shadowWorld) (shadowChain, *refusal) {
	chain, err := w.botocore()
	if err == nil && len(chain.links) > 0 && chain.links[0].Kind == KindEnvironmentKeys && w.named != "" && len(chain.links) == 1 {
		w.note("aws --profile %s would leave out the environment's keys", quoteName(w.named))
	}
	return chain, err
}

func (w *shadowWorld) botocore() (shadowChain, *refusal) {
	// configloader.raw_config_parse: configparser refuses duplicates, and
	// with them the whole file.
	if w.twice != nil {
		return shadowChain{}, &refusal{"it refuses a file in which a section or a key stands twice", *w.twice}
	}
	// session.get_scoped_config
	if w.chosen && !w.read(w.profile).exists() {
		return shadowChain{}, missing(w.profile)
	}
	if w.env[envAccessKeyID] != "" {
		if w.env[envSecretKey] == "" {
			return shadowChain{}, &refusal{envSecretKey + " is not set", fromEnvironment(envAccessKeyID)}
		}
		return w.envKeys(envAccessKeyID), nil
	}
	p := w.read(w.profile)
	if p.assumesRole() {
		return w.botocoreRole(p, []string{p.name})
	}
	if chain, ok, err := w.botocoreProfile(p, true); ok || err != nil {
		return chain, err
	}
	return w.remote()
}

// assumesRole is AssumeRoleProvider._has_assume_role_config_vars.
func (p *sdkProfile) assumesRole() bool {
	_, role := p.has("role_arn")
	_, token := p.has("web_identity_token_file")
	return role && !token
}

// hasKeys is AssumeRoleProvider._has_static_credentials.
func (p *sdkProfile) hasKeys() bool {
	_, id := p.has("aws_access_key_id")
	_, secret := p.has("aws_secret_access_key")
	return id || secret
}

// botocoreRole is AssumeRoleProvider._load_creds_via_assume_role.
func (w *shadowWorld) botocoreRole(p *sdkProfile, visited []string) (shadowChain, *refusal) {
	role, _ := p.has("role_arn")
	source, hasSource := p.has("source_profile")
	named, hasNamed := p.has("credential_source")
	var chain shadowChain
	var err *refusal
	switch {
	case hasSource && hasNamed:
		return chain, &refusal{"source_profile and credential_source exclude each other", named.origin}
	case !hasSource && !hasNamed:
		return chain, &refusal{"role_arn needs source_profile or credential_source", role.origin}
	case hasNamed:
		switch named.text {
		case "Ec2InstanceMetadata":
			chain, err = w.imds(named.origin)
		case "EcsContainer":
			chain, err = w.container(named.origin)
		case "Environment":
			if w.env[envAccessKeyID] == "" {
				return chain, &refusal{"the environment has no keys", named.origin}
			}
			chain = w.envKeys(envAccessKeyID)
		default:
			return chain, &refusal{"credential_source has a value that it does not know", named.origin}
		}
	default:
		below := w.read(source.text)
		if !below.exists() {
			return chain, &refusal{"source_profile names a profile that is in neither file", source.origin}
		}
		for _, name := range visited {
			if name == source.text && (source.text != p.name || !below.hasKeys()) {
				return chain, &refusal{"its source profiles form a cycle", source.origin}
			}
		}
		if below.hasKeys() || !below.assumesRole() {
			var ok bool
			if chain, ok, err = w.botocoreProfile(below, false); err == nil && !ok {
				err = &refusal{"the source profile has no credentials", source.origin}
			}
		} else {
			chain, err = w.botocoreRole(below, append(visited, source.text))
		}
	}
	if err != nil {
		return chain, err
	}
	w.mfa(p, "the code is asked for on the terminal, in each process anew")
	return chain.with(p.role(KindAssumeRole, role)), nil
}

// botocoreProfile is what ProfileProviderBuilder.providers looks for, in
// their order; ok is false where nothing is found.
func (w *shadowWorld) botocoreProfile(p *sdkProfile, environment bool) (chain shadowChain, ok bool, err *refusal) {
	token, hasToken := p.get("web_identity_token_file")
	role, hasRole := p.get("role_arn")
	if environment && w.env[envTokenFile] != "" {
		token, hasToken = found{text: w.env[envTokenFile], origin: fromEnvironment(envTokenFile)}, true
	}
	if environment && w.env[envRoleARN] != "" {
		role, hasRole = found{text: w.env[envRoleARN], origin: fromEnvironment(envRoleARN)}, true
	}
	if hasToken {
		if !hasRole {
			return chain, false, &refusal{"web_identity_token_file without a role", token.origin}
		}
		l := p.role(KindWebIdentity, role)
		if l.Origin.Kind == FromEnvironment {
			l.Profile, l.Origin = "", token.origin
		}
		return shadowChain{links: []ExplainedLink{l}}, true, nil
	}
	_, hasAccount := p.has("sso_account_id")
	_, hasRoleName := p.has("sso_role_name")
	if hasAccount || hasRoleName {
		if err := p.ssoComplete(); err != nil {
			return chain, false, err
		}
		_, at, _ := p.first(ssoKeys...)
		return shadowChain{links: []ExplainedLink{p.link(KindSSO, at.origin)}}, true, nil
	}
	if chain, ok, err = p.botocoreKeys(credentialsFile); ok || err != nil {
		return chain, ok, err
	}
	if login, has := p.has("login_session"); has {
		w.note("%s: botocore before 1.41 (the AWS CLI before 2.32) does not know it, and botocore needs its crt extra", said("login_session", login))
		return shadowChain{links: []ExplainedLink{p.link(KindLogin, login.origin)}}, true, nil
	}
	if line, has := p.has("credential_process"); has {
		return p.process(line), true, nil
	}
	return p.botocoreKeys(configFile)
}

// botocoreKeys is the SharedCredentialProvider's or the ConfigProvider's
// look at its own file.
func (p *sdkProfile) botocoreKeys(file int) (chain shadowChain, ok bool, err *refusal) {
	id, has := p.in(file, "aws_access_key_id")
	if !has {
		return chain, false, nil
	}
	if _, whole := p.in(file, "aws_secret_access_key"); !whole {
		return chain, false, &refusal{"half a key pair", id.origin}
	}
	return p.static(id), true, nil
}

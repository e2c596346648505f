package profiles

import "fmt"

// The orders of the SDKs, each as its own source code has it. The e2e test
// compares those of Go, botocore, the AWS CLI and JavaScript with what the
// real ones do; those of Java and Rust are told from their sources alone.

type shadowModel struct {
	id, name  string
	variables []string // that choose the profile, the first wins
	resolve   func(*shadowWorld) (shadowChain, *refusal)
}

var shadowModels = []shadowModel{
	// aws-sdk-go-v2 config/env_config.go, profileEnvKeys
	{"go", "AWS SDK for Go v2 (Terraform, kubectl)", []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"}, goModel},
	// botocore/configprovider.py, BOTOCORE_DEFAUT_SESSION_VARIABLES
	{"botocore", "botocore (boto3, AWS CLI v1)", []string{"AWS_DEFAULT_PROFILE", "AWS_PROFILE"}, botocoreModel},
	// awscli/botocore/configprovider.py: the other way round
	{"aws-cli-v2", "AWS CLI v2", []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"}, cliModel},
	// @smithy/core shared-ini-file-loader/getProfileName
	{"js", "AWS SDK for JavaScript v3 (CDK)", []string{"AWS_PROFILE"}, jsModel},
	// aws-sdk-java-v2 core/profiles ProfileFileSystemSetting
	{"java", "AWS SDK for Java v2", []string{"AWS_PROFILE"}, javaModel},
	// aws-sdk-rust aws-config profile/parser
	{"rust", "AWS SDK for Rust", []string{"AWS_PROFILE"}, rustModel},
}

// missing is the refusal of a profile that is in neither file.
func missing(name string) *refusal {
	return &refusal{why: "it has no profile " + quoteName(name) + " in the AWS files"}
}

// mfa tells of a role's mfa_serial, which every SDK treats otherwise.
func (w *shadowWorld) mfa(p *sdkProfile, note string) {
	if f, ok := p.get("mfa_serial"); ok {
		w.note("%s: %s", said("mfa_serial", f), note)
	}
}

// ---- Go: aws-sdk-go-v2/config resolve_credentials.go and shared_config.go

// goProfile is the SDK's SharedConfig.
type goProfile struct {
	*sdkProfile
	role, credentialSource, webIdentity, process, login found
	keys                                                found // the access key id
	sso                                                 found
	source                                              *goProfile
}

func goModel(w *shadowWorld) (shadowChain, *refusal) {
	// config.go, resolveConfigLoaders: a profile that AWS_PROFILE names must
	// exist, whatever else there is. What is wrong with one is an error even
	// where the environment's keys would be used.
	var p *goProfile
	if !w.read(w.profile).exists() {
		if w.named != "" || w.env["AWS_PROFILE"] != "" {
			return shadowChain{}, missing(w.profile)
		}
		p = &goProfile{sdkProfile: w.read(w.profile)}
	} else {
		var err *refusal
		if p, err = w.goLoad(w.profile, map[string]bool{}); err != nil {
			return shadowChain{}, err
		}
	}
	id := "AWS_ACCESS_KEY_ID"
	if w.env[id] == "" {
		id = "AWS_ACCESS_KEY"
	}
	switch {
	case w.env[id] != "" && firstSet(w.env, envSecretKey, "AWS_SECRET_KEY") != "":
		return w.envKeys(id), nil
	case w.env[envTokenFile] != "":
		if w.env[envRoleARN] == "" {
			return shadowChain{}, &refusal{envTokenFile + " is set and " + envRoleARN + " is not", fromEnvironment(envTokenFile)}
		}
		return w.envWebIdentity(), nil
	}
	return w.goResolve(p)
}

// goLoad is SharedConfig.setFromIniSections.
func (w *shadowWorld) goLoad(name string, seen map[string]bool) (*goProfile, *refusal) {
	p := &goProfile{sdkProfile: w.read(name)}
	// mergeSections: half a pair in the last file that has the section.
	for _, i := range []int{credentialsFile, configFile} {
		id, hasID := p.in(i, "aws_access_key_id")
		secret, hasSecret := p.in(i, "aws_secret_access_key")
		if hasID != hasSecret {
			at := id.origin
			if hasSecret {
				at = secret.origin
			}
			return nil, &refusal{"half a key pair", at}
		}
		if p.secs[i] != nil {
			break
		}
	}
	for _, i := range []int{credentialsFile, configFile} {
		id, hasID := p.in(i, "aws_access_key_id")
		secret, hasSecret := p.in(i, "aws_secret_access_key")
		if hasID && hasSecret {
			if id.text != "" && secret.text != "" {
				p.keys = id
			}
			break
		}
	}
	p.role, _ = p.get("role_arn")
	p.credentialSource, _ = p.get("credential_source")
	p.webIdentity, _ = p.get("web_identity_token_file")
	p.process, _ = p.get("credential_process")
	p.login, _ = p.get("login_session")
	_, p.sso, _ = p.first(ssoKeys...)
	source, _ := p.get("source_profile")
	if seen[name] {
		// clearAssumeRoleOptions: the second time a profile is met, it gives
		// its credentials and no role.
		p.role, source = found{}, found{}
	} else if p.role.text == "" {
		if key, f, ok := p.first("source_profile", "credential_source", "web_identity_token_file"); ok {
			return nil, &refusal{key + " without role_arn", f.origin}
		}
	}
	if len(seen) > 0 && p.keys.text != "" {
		if p.role.text != "" {
			w.note("%s: the role of a source profile is assumed though the profile has keys", said("role_arn", p.role))
		}
		return p, nil
	}
	seen[name] = true
	// validateCredentialType
	var set []found
	for _, f := range []found{source, p.credentialSource, p.process, p.webIdentity} {
		if f.text != "" {
			set = append(set, f)
		}
	}
	if len(set) > 1 {
		return nil, &refusal{"only one of source_profile, credential_source, credential_process and web_identity_token_file may stand in a profile", set[len(set)-1].origin}
	}
	if source.text != "" {
		// clearCredentialOptions
		p.credentialSource, p.process, p.webIdentity, p.keys, p.sso = found{}, found{}, found{}, found{}, found{}
		if !w.read(source.text).exists() {
			return nil, &refusal{"source_profile names a profile that is in neither file", source.origin}
		}
		below, err := w.goLoad(source.text, seen)
		if err != nil {
			return nil, err
		}
		// hasCredentials does not know login_session.
		if below.source == nil && below.credentialSource.text == "" && below.process.text == "" && below.webIdentity.text == "" && below.sso.text == "" && below.keys.text == "" {
			return nil, &refusal{"the source profile has no credentials that it knows", source.origin}
		}
		p.source = below
	}
	if name, s, named := p.session(); named && s == nil {
		return nil, &refusal{"there is no such sso-session", name.origin}
	}
	return p, nil
}

// goResolve is resolveCredsFromProfile.
func (w *shadowWorld) goResolve(p *goProfile) (chain shadowChain, err *refusal) {
	switch {
	case p.source != nil:
		chain, err = w.goResolve(p.source)
	case p.keys.text != "":
		chain = p.static(p.keys)
	case p.credentialSource.text != "":
		chain, err = w.goSource(p)
	case p.webIdentity.text != "":
		return shadowChain{links: []ExplainedLink{p.roleLink(KindWebIdentity)}}, nil
	case p.sso.text != "":
		if err = p.ssoComplete(); err == nil {
			chain = shadowChain{links: []ExplainedLink{p.link(KindSSO, p.sso.origin)}}
		}
	case p.login.text != "":
		chain = shadowChain{links: []ExplainedLink{p.link(KindLogin, p.login.origin)}}
	case p.process.text != "":
		chain = p.sdkProfile.process(p.process)
	default:
		chain, err = w.remote()
	}
	if err != nil || p.role.text == "" {
		return chain, err
	}
	// credsFromAssumeRole: without a token provider of the program's.
	if f, ok := p.get("mfa_serial"); ok {
		return shadowChain{}, &refusal{"it asks nobody for an MFA code: a program has to bring a token provider", f.origin}
	}
	return chain.with(p.roleLink(KindAssumeRole)), nil
}

func (p *goProfile) roleLink(kind Kind) ExplainedLink { return p.sdkProfile.role(kind, p.role) }

func (w *shadowWorld) goSource(p *goProfile) (shadowChain, *refusal) {
	switch p.credentialSource.text {
	case "Ec2InstanceMetadata":
		return w.imds(p.credentialSource.origin)
	case "Environment":
		if w.env[envAccessKeyID] == "" || w.env[envSecretKey] == "" {
			return shadowChain{}, &refusal{"the environment has no keys", p.credentialSource.origin}
		}
		return w.envKeys(envAccessKeyID), nil
	case "EcsContainer":
		return w.container(p.credentialSource.origin)
	}
	return shadowChain{}, &refusal{"credential_source has a value that it does not know", p.credentialSource.origin}
}

func (w *shadowWorld) imds(at Origin) (shadowChain, *refusal) {
	return shadowChain{links: []ExplainedLink{{Kind: KindIMDS, Origin: at}}}, nil
}

func (w *shadowWorld) container(at Origin) (shadowChain, *refusal) {
	if firstSet(w.env, envContainerRel, envContainerFull) == "" {
		return shadowChain{}, &refusal{"neither " + envContainerRel + " nor " + envContainerFull + " is set", at}
	}
	return shadowChain{links: []ExplainedLink{{Kind: KindContainer, Origin: at}}}, nil
}

// ssoComplete is what an SDK asks of a profile with sso_* keys: an account
// and a role, a start URL and a region, the latter two of the session where
// one is named.
func (p *sdkProfile) ssoComplete() *refusal {
	name, s, named := p.session()
	if named && s == nil {
		return &refusal{"there is no such sso-session", name.origin}
	}
	_, at, _ := p.first(ssoKeys...)
	for _, key := range []string{"sso_account_id", "sso_role_name"} {
		if p.text(key) == "" {
			return &refusal{key + " is missing", at.origin}
		}
	}
	for _, key := range []string{"sso_start_url", "sso_region"} {
		mine, has := p.get(key)
		if !named {
			if !has {
				return &refusal{key + " is missing", at.origin}
			}
			continue
		}
		theirs := s.get(key)
		switch {
		case theirs == nil || theirs.value == "":
			return &refusal{fmt.Sprintf("[sso-session %s] has no %s", name.text, key), name.origin}
		case has && mine.text != theirs.value:
			return &refusal{key + " differs from that of its sso-session", mine.origin}
		}
	}
	return nil
}

package ops

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"keyfob/profiles"
)

// What a person puts in the place of what can't be known here.
const (
	fillAccount = "ACCOUNT"
	fillIssuer  = "ISSUER"
	fillName    = "NAME"
)

// trust is the trust policy of the role that link i ends in.
func (c *chainPolicies) trust(i int) (PolicyDocument, bool) {
	l := c.Chain[i]
	d := PolicyDocument{For: l.RoleARN, Profile: l.Profile, Notes: []string{}}
	switch l.Kind {
	case profiles.KindAssumeRole:
		c.trustUser(&d, i)
	case profiles.KindWebIdentity, profiles.KindOIDC:
		c.trustOIDC(&d, i)
	case profiles.KindSAML:
		c.trustSAML(&d, i)
	case profiles.KindRolesAnywhere:
		d.fill(statement{
			Effect:    "Allow",
			Principal: map[string]any{"Service": "rolesanywhere.amazonaws.com"},
			Action:    []string{"sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"},
			Condition: condition{"ArnEquals": {"aws:SourceArn": l.Params["roles_anywhere_trust_anchor_arn"]}},
		})
		d.note("every certificate of that trust anchor is let in: a condition on aws:PrincipalTag/x509Subject/CN names those that are meant")
		d.note("the Roles Anywhere profile %s must list the role", l.Params["roles_anywhere_profile_arn"])
	case profiles.KindIMDS:
		d.fill(statement{Effect: "Allow", Principal: map[string]any{"Service": "ec2.amazonaws.com"}, Action: "sts:AssumeRole"})
		d.note("it belongs to the role of the instance's profile, which is not known here")
	case profiles.KindContainer:
		d.fill(statement{Effect: "Allow", Principal: map[string]any{"Service": "ecs-tasks.amazonaws.com"}, Action: "sts:AssumeRole"})
		d.note("it belongs to the task's role, which is not known here; for EKS Pod Identity the service is pods.eks.amazonaws.com, with sts:TagSession as a second action")
	default:
		return d, false
	}
	return d, true
}

// needs are the actions and conditions of an AssumeRole call by link i.
func (c *chainPolicies) needs(i int) (actions []string, cond condition) {
	l := c.Chain[i]
	var below linkFacts
	if i > 0 {
		below = c.links[i-1]
	}
	actions, cond = []string{"sts:AssumeRole"}, condition{}
	if below.mfa || l.Params["mfa_serial"] != "" {
		cond.set("Bool", "aws:MultiFactorAuthPresent", "true")
	}
	if id := l.Params["external_id"]; id != "" {
		cond.set("StringEquals", "sts:ExternalId", id)
	}
	switch own := l.Params["source_identity"]; {
	case own != "":
		actions = append(actions, "sts:SetSourceIdentity")
		cond.set("StringEquals", "sts:SourceIdentity", own)
	case below.identity != "":
		// It passes on from the role below, and takes the permission anew.
		actions = append(actions, "sts:SetSourceIdentity")
		if below.identity != "*" {
			cond.set("StringEquals", "aws:SourceIdentity", below.identity)
		}
	}
	tags := tagsOf(l)
	if len(tags)+len(below.tags) == 0 {
		return actions, cond
	}
	actions = append(actions, "sts:TagSession")
	var keys []string
	for _, t := range tags {
		cond.set("StringEquals", "aws:RequestTag/"+t.key, t.value)
		keys = append(keys, t.key)
	}
	for _, t := range below.tags {
		if !slices.Contains(keys, t.key) {
			keys = append(keys, t.key)
		}
	}
	slices.Sort(keys)
	cond.set("ForAllValues:StringEquals", "aws:TagKeys", few(keys))
	if transitive := splitComma(l.Params["transitive_session_tags"]); len(transitive) > 0 {
		slices.Sort(transitive)
		cond.set("ForAllValues:StringEquals", "sts:TransitiveTagKeys", few(transitive))
	}
	return actions, cond
}

// trustUser is the trust policy of a role that the identity below assumes.
func (c *chainPolicies) trustUser(d *PolicyDocument, i int) {
	actions, cond := c.needs(i)
	principal := c.principal(d, i, cond)
	d.fill(statement{Effect: "Allow", Principal: map[string]any{"AWS": principal}, Action: few(actions), Condition: orNil(cond)})
	if own := accountIn(d.For); own != "" && accountIn(principal) != own {
		d.note("%s is in another account: its own policy must allow the call too (keyfob policy identity %s)", c.signerName(i), c.Profile)
	}
}

func orNil(c condition) condition {
	if len(c) == 0 {
		return nil
	}
	return c
}

func (c *chainPolicies) signerName(i int) string {
	if s := c.signer(i); s >= 0 && c.Chain[s].RoleARN != "" {
		return "the role below, " + c.Chain[s].RoleARN + ","
	}
	return "who assumes the role"
}

// principal is who signs link i, as a trust policy names it. Whoever can't be
// named is narrowed by a condition, or by a person.
func (c *chainPolicies) principal(d *PolicyDocument, i int, cond condition) string {
	partition, at := c.partition(i), c.signer(i)
	root := func(account string) string { return "arn:" + partition + ":iam::" + account + ":root" }
	target := accountIn(d.For)
	if target == "" {
		target = fillAccount
	}
	if at < 0 {
		d.note("who assumes the role is not known here: put its ARN in the place of %s", root(target))
		return root(target)
	}
	b := c.Chain[at]
	switch {
	case b.RoleARN != "":
		return b.RoleARN
	case b.Kind == profiles.KindStaticKeys || b.Kind == profiles.KindEnvironmentKeys:
		if c.User != "" && at == 0 {
			if strings.HasSuffix(c.User, ":root") {
				d.note("the keys are those of an account's root user, which can't assume a role: make an IAM user")
			}
			return c.User
		}
		account := c.Account
		if account == "" {
			account = target
		}
		d.note("the user is not known here: whoever in account %s may call sts:AssumeRole is let in; put the user's ARN in the place of %s (keyfob whoami %s)", account, root(account), b.Profile)
		return root(account)
	case b.Kind == profiles.KindSSO:
		// The hash at the end of a reserved role's name changes when the
		// permission set is assigned anew, so IAM is given a pattern.
		account := b.Params["sso_account_id"]
		cond.set("ArnLike", "aws:PrincipalArn", reservedRole(partition, account, b.Params["sso_role_name"]))
		d.note("it lets in everybody to whom the permission set %s is assigned in account %s", b.Params["sso_role_name"], account)
		return root(account)
	case b.Kind == profiles.KindLogin:
		if who := c.loggedIn(d, b.Params["login_session"], cond); who != "" {
			return who
		}
	}
	d.note("who assumes the role is not known here (a link of kind %s is below it): whoever in account %s may call sts:AssumeRole is let in; put the ARN that `keyfob whoami` shows for its credentials in the place of %s", b.Kind, target, root(target))
	return root(target)
}

// reservedRole matches the role of a permission set, in whatever region
// Identity Center is: its name ends in sixteen hexadecimal digits.
func reservedRole(partition, account, set string) string {
	return "arn:" + partition + ":iam::" + account + ":role/aws-reserved/sso.amazonaws.com*/AWSReservedSSO_" + set + "_" + strings.Repeat("?", 16)
}

// loggedIn is the principal of a console sign-in, "" where nobody has signed
// in yet.
func (c *chainPolicies) loggedIn(d *PolicyDocument, session string, cond condition) string {
	partition, account := partitionOf(session), accountIn(session)
	if partition == "" || account == "" {
		return ""
	}
	_, resource, _ := strings.Cut(session, account+":")
	name, ok := strings.CutPrefix(resource, "assumed-role/")
	if !ok {
		return session
	}
	name, _, _ = strings.Cut(name, "/")
	if set, ok := strings.CutPrefix(name, "AWSReservedSSO_"); ok && len(set) > 17 {
		cond.set("ArnLike", "aws:PrincipalArn", reservedRole(partition, account, set[:len(set)-17]))
		return "arn:" + partition + ":iam::" + account + ":root"
	}
	d.note("the path of the role %s is not known here: where it has one, put it in", name)
	return "arn:" + partition + ":iam::" + account + ":role/" + name
}

// trustOIDC is the trust policy of a role that an identity token opens.
func (c *chainPolicies) trustOIDC(d *PolicyDocument, i int) {
	l := c.Chain[i]
	account := accountIn(l.RoleARN)
	if account == "" {
		account = fillAccount
	}
	issuer, audience, subject := l.Params["oidc_issuer"], l.Params["oidc_client_id"], ""
	if l.Kind == profiles.KindWebIdentity {
		if c.Token != nil {
			if b, err := c.Token(l.Params["web_identity_token_file"]); err == nil {
				issuer, audience, subject = claims(b)
			}
		}
		if issuer == "" {
			issuer = "https://" + fillIssuer
			d.note("the token %s can't be read here: put its issuer (iss, without https://) in the place of %s, and conditions on its audience and subject", l.Params["web_identity_token_file"], fillIssuer)
		}
	}
	name := issuer
	if _, rest, ok := strings.Cut(issuer, "://"); ok {
		name = rest
	}
	provider := "arn:" + c.partition(i) + ":iam::" + account + ":oidc-provider/" + name
	cond := condition{}
	if name == "accounts.google.com" { // IAM knows it without a provider
		provider = name
	} else {
		d.note("account %s needs the identity provider %s, with the audience %s", account, name, orElse(audience, "of the token"))
	}
	if audience != "" {
		cond.set("StringEquals", name+":aud", audience)
	}
	if subject != "" {
		cond.set("StringEquals", name+":sub", subject)
	} else {
		d.note("everybody whom the identity provider gives a token for that audience is let in: a condition on %s:sub names those who are meant", name)
	}
	d.fill(statement{Effect: "Allow", Principal: map[string]any{"Federated": provider}, Action: "sts:AssumeRoleWithWebIdentity", Condition: orNil(cond)})
	d.note("where tokens carry tags or a source identity for AWS, add the actions sts:TagSession and sts:SetSourceIdentity")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// claims are what a token says of itself. It is not verified: AWS does that,
// and what is wrong in it makes a policy that lets nobody in.
func claims(token []byte) (issuer, audience, subject string) {
	parts := strings.Split(strings.TrimSpace(string(token)), ".")
	if len(parts) != 3 {
		return "", "", ""
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return "", "", ""
	}
	var c struct {
		Iss, Sub string
		Aud      json.RawMessage
	}
	if json.Unmarshal(b, &c) != nil || !strings.Contains(c.Iss, "://") {
		return "", "", ""
	}
	var many []string
	if json.Unmarshal(c.Aud, &audience) != nil && json.Unmarshal(c.Aud, &many) == nil && len(many) > 0 {
		audience = many[0]
	}
	return c.Iss, audience, c.Sub
}

// samlEndpoints are where a partition's sign-in takes assertions: the value
// of SAML:aud (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html).
var samlEndpoints = map[string]string{
	"aws":        "https://signin.aws.amazon.com/saml",
	"aws-cn":     "https://signin.amazonaws.cn/saml",
	"aws-us-gov": "https://signin.amazonaws-us-gov.com/saml",
}

// trustSAML is the trust policy of a role that an assertion opens.
func (c *chainPolicies) trustSAML(d *PolicyDocument, i int) {
	l := c.Chain[i]
	partition, provider := c.partition(i), l.Params["principal_arn"]
	account := accountIn(l.RoleARN)
	if account == "" {
		account = orElse(accountIn(provider), fillAccount)
	}
	if d.For == "" {
		d.note("the assertion names the roles that there are: each of them needs this policy")
	}
	if provider == "" {
		provider = fmt.Sprintf("arn:%s:iam::%s:saml-provider/%s", partition, account, fillName)
		d.note("put the ARN of the identity provider in the place of %s: principal_arn is not set", provider)
	}
	cond := condition{}
	if aud := samlEndpoints[partition]; aud != "" {
		cond.set("StringEquals", "SAML:aud", aud)
		d.note("where the identity provider posts to a region's own sign-in (https://REGION.signin…/saml), SAML:aud is that address")
	} else {
		d.note("add a condition on SAML:aud with the address of the partition's sign-in")
	}
	d.fill(statement{Effect: "Allow", Principal: map[string]any{"Federated": provider}, Action: "sts:AssumeRoleWithSAML", Condition: orNil(cond)})
	d.note("where assertions carry tags or a source identity, add the actions sts:TagSession and sts:SetSourceIdentity")
}

package ops

import (
	"fmt"
	"slices"

	"keyfob/profiles"
)

// rotates are the actions that `keyfob rotate` needs.
const rotates = "iam:CreateAccessKey, iam:ListAccessKeys, iam:GetAccessKeyLastUsed, iam:UpdateAccessKey and iam:DeleteAccessKey"

// identity is the policy of the identity that link i gives, where that signs
// a call for a role above, or is a user.
func (c *chainPolicies) identity(i int) (PolicyDocument, bool) {
	l := c.Chain[i]
	if l.Kind == profiles.KindSessionToken {
		return PolicyDocument{}, false // its user's
	}
	d := PolicyDocument{For: l.RoleARN, Profile: l.Profile, Notes: []string{}}
	var statements []statement
	for above := i + 1; above < len(c.Chain); above++ {
		if c.Chain[above].Kind != profiles.KindAssumeRole || c.signer(above) != i {
			continue
		}
		actions, _ := c.needs(above)
		statements = append(statements, statement{Sid: "AssumeRole", Effect: "Allow", Action: few(actions), Resource: c.Chain[above].RoleARN})
		if slices.Contains(actions, "sts:TagSession") || slices.Contains(actions, "sts:SetSourceIdentity") {
			d.note("which tags and which source identity are set is what the trust policy decides (keyfob policy trust %s)", c.Profile)
		}
	}
	user := LongLived(c.Chain[:1]) && i == 0
	if len(statements) == 0 && !user {
		return d, false
	}
	switch {
	case user:
		statements = append(statements, c.user(&d))
	case l.Kind == profiles.KindSSO:
		d.note("it belongs into the permission set %s, as an inline policy", l.Params["sso_role_name"])
	case l.Kind == profiles.KindLogin && accountIn(l.Params["login_session"]) != "":
		d.For = l.Params["login_session"]
		d.note("it belongs to the user or role that signs in")
	case d.For == "":
		d.note("it belongs to whomever the credentials of the link of kind %s belong to, which is not known here (keyfob whoami)", l.Kind)
	}
	d.fill(statements...)
	return d, true
}

// user is what a user's own policy has besides roles.
func (c *chainPolicies) user(d *PolicyDocument) statement {
	account := c.Account
	if c.User != "" {
		d.For, account = c.User, accountIn(c.User)
	}
	self := c.User
	if userOf(self) == "" {
		if account == "" {
			account = "*"
		}
		self = fmt.Sprintf("arn:%s:iam::%s:user/${aws:username}", c.partition(0), account)
		if d.For == "" {
			d.note("it belongs to the user of the keys, who is not known here (keyfob whoami %s)", c.Chain[0].Profile)
		}
	}
	d.note("sts:GetSessionToken needs no permission")
	d.note("`keyfob rotate %s` needs %s on %s as well", c.Chain[0].Profile, rotates, self)
	return statement{Sid: "FindTheMFADevice", Effect: "Allow", Action: "iam:ListMFADevices", Resource: self}
}

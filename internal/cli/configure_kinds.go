package cli

import (
	"flag"
	"strings"

	"keyfob/internal/setup"
)

// question is one setting of a profile that the wizard asks for, and its
// flag.
type question struct {
	flag     string
	key      string // in a profile's section
	text     string // "Role"
	usage    string // of the flag, `VALUE` in backquotes
	check    func(string) error
	optional bool
	silent   bool // by its flag alone: nobody is asked for it
}

// kind is one way to get credentials, as the wizard offers it.
type kind struct {
	name      string // of --kind
	also      string // another word for it
	label     string
	questions []question
	next      string // what is done next, "P" for the profile
}

var (
	askRoleARN    = question{flag: "role-arn", key: "role_arn", text: "ARN of the role", usage: "`ARN` of the role", check: setup.RoleARN}
	askSession    = question{flag: "role-session-name", key: "role_session_name", text: "Session name, which CloudTrail shows", usage: "`name` of the role's sessions, which CloudTrail shows", check: setup.SessionName, optional: true, silent: true}
	askDuration   = question{flag: "duration-seconds", key: "duration_seconds", text: "Seconds that a session lasts", usage: "`seconds` that a session lasts", check: setup.Duration, optional: true, silent: true}
	askExternalID = question{flag: "external-id", key: "external_id", text: "External id, where the role wants one", usage: "external `id` that the role wants", check: setup.ExternalID, optional: true}
	askMFA        = question{flag: "mfa-serial", key: "mfa_serial", text: "MFA device, where the role wants a code", usage: "`ARN` or serial number of the MFA device, or none", check: mfaSerial, optional: true}
	askRegion     = question{flag: "region", key: "region", text: "Region for its programs", usage: "`region` for the profile's programs", check: setup.Region, optional: true}
)

// mfaSerial checks for a device, or the word none.
func mfaSerial(s string) error {
	if s == none {
		return nil
	}
	return setup.MFASerial(s)
}

// none is the answer that leaves a setting out.
const none = "none"

// The kinds' names.
const (
	kindUser, kindRole, kindSSO, kindOIDC, kindSAML = "user", "role", "sso", "oidc", "saml"
	kindAnywhere, kindLogin, kindExisting           = "roles-anywhere", "login", "existing"
)

// kinds is every kind, in the order of the list.
func kinds() []kind {
	return []kind{
		{name: kindUser, also: "iam-user", label: "an IAM user's access key, kept in the vault", questions: []question{askMFA}, next: "keyfob exec P -- aws sts get-caller-identity"},
		{name: kindRole, label: "a role, assumed with another profile", questions: []question{askRoleARN,
			{flag: "source-profile", key: "source_profile", text: "Profile that assumes it", usage: "`profile` that assumes the role", check: setup.Name},
			{flag: "credential-source", key: "credential_source", usage: "in place of --source-profile, a `source`: " + alternatives(credentialSources), check: oneOf(credentialSources...), optional: true, silent: true},
			askExternalID, askMFA, askSession, askDuration}, next: "keyfob whoami P"},
		{name: kindSSO, also: "identity-center", label: "IAM Identity Center: accounts and roles by one sign-in", questions: []question{
			{flag: "start-url", key: "sso_start_url", text: "Start URL, as https://d-1234567890.awsapps.com/start", usage: "start `URL` of Identity Center", check: setup.URL},
			{flag: "sso-region", key: "sso_region", text: "Region of Identity Center", usage: "`region` of Identity Center", check: setup.Region},
			{flag: "sso-session", key: "sso_session", text: "Name of this sign-in", usage: "`name` of the sso-session", check: setup.Name, optional: true},
			{flag: "scopes", key: "sso_registration_scopes", usage: "`scopes` of the sign-in", check: setup.Text, optional: true, silent: true},
		}, next: "keyfob whoami P"},
		{name: kindOIDC, label: "an OpenID Connect provider", questions: []question{
			{flag: "issuer", key: "oidc_issuer", text: "Issuer URL", usage: "`URL` of the OpenID Connect provider", check: setup.URL},
			{flag: "client-id", key: "oidc_client_id", text: "Client id", usage: "client `id` at the provider", check: setup.Text}, askRoleARN,
			{flag: "oidc-scopes", key: "oidc_scopes", usage: "`scopes` to ask for", check: setup.Text, optional: true, silent: true},
			{flag: "redirect-port", key: "oidc_redirect_port", usage: "`port` of the redirect, where the provider wants a fixed one", check: setup.Port, optional: true, silent: true},
			askSession, askDuration}, next: "keyfob login P"},
		{name: kindSAML, label: "a SAML identity provider", questions: []question{
			{flag: "saml-url", key: "saml_url", text: "Address that starts the sign-in to AWS", usage: "`URL` that starts the sign-in to AWS", check: setup.URL},
			{flag: "saml-process", key: "saml_process", usage: "in place of --saml-url: `command` that prints an assertion", check: setup.Text, optional: true, silent: true},
			optional(askRoleARN, "ARN of the role (empty: chosen at each sign-in)"),
			{flag: "principal-arn", key: "principal_arn", text: "ARN of the SAML provider in IAM (empty: as the assertion says)", usage: "`ARN` of the SAML provider in IAM", check: setup.SAMLProvider, optional: true},
			askDuration}, next: "keyfob login P"},
		{name: kindAnywhere, also: "rolesanywhere", label: "IAM Roles Anywhere: a certificate", questions: []question{
			{flag: "trust-anchor-arn", key: "roles_anywhere_trust_anchor_arn", text: "ARN of the trust anchor", usage: "`ARN` of the trust anchor", check: setup.TrustAnchorARN},
			{flag: "profile-arn", key: "roles_anywhere_profile_arn", text: "ARN of the Roles Anywhere profile", usage: "`ARN` of the Roles Anywhere profile", check: setup.AnywhereARN},
			askRoleARN,
			{flag: "certificate", key: "roles_anywhere_certificate", text: "Certificate: a file, vault:NAME or a pkcs11: URI", usage: "`file`, vault:NAME or pkcs11: URI", check: setup.Text},
			{flag: "private-key", key: "roles_anywhere_private_key", text: "Private key, where that does not hold it", usage: "`file`, vault:NAME or pkcs11: URI of the private key", check: setup.Text, optional: true},
			{flag: "intermediates", key: "roles_anywhere_intermediates", usage: "`file` with intermediate certificates", check: setup.Text, optional: true, silent: true},
			askSession, askDuration}, next: "keyfob whoami P"},
		{name: kindLogin, label: "aws login: sign in to the console in a browser", next: "keyfob login P"},
		{name: kindExisting, label: "what the AWS config says of it already, through keyfob", next: "keyfob whoami P"},
	}
}

// credentialSources are the values of credential_source
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html).
var credentialSources = []string{"Environment", "Ec2InstanceMetadata", "EcsContainer"}

// kindNames are the kinds for completion.
func kindNames() (names []candidate) {
	for _, k := range kinds() {
		names = append(names, candidate{k.name, k.label})
	}
	return names
}

// alternatives lists words as a sentence does: "a, b or c".
func alternatives(words []string) string {
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " or " + words[n]
}

func optional(q question, text string) question {
	q.optional, q.text = true, text
	return q
}

// configureOptions are the flags of `keyfob configure`.
type configureOptions struct {
	kind     string
	given    map[string]string // by the questions' flags
	all      bool
	accounts listFlag
	roles    listFlag
	template string
	dryRun   bool
	list     bool // undo --list
	forget   bool // undo --forget
}

// answerFlag sets one of configureOptions.given.
type answerFlag struct {
	o    *configureOptions
	name string
}

func (f answerFlag) String() string {
	if f.o == nil {
		return ""
	}
	return f.o.given[f.name]
}

func (f answerFlag) Set(s string) error {
	if f.o.given == nil {
		f.o.given = map[string]string{}
	}
	f.o.given[f.name] = s
	return nil
}

func configureFlags(o *options, fs *flag.FlagSet) {
	c := &o.configure
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	fs.StringVar(&c.kind, "kind", "", "`kind` of source: "+alternatives(names))
	done := map[string]bool{}
	for _, k := range append(kinds(), kind{questions: []question{askRegion}}) {
		for _, q := range k.questions {
			if !done[q.flag] {
				done[q.flag] = true
				fs.Var(answerFlag{c, q.flag}, q.flag, q.usage)
			}
		}
	}
	fs.BoolVar(&c.all, "all", false, "sso: every account and role")
	fs.Var(&c.accounts, "account", "sso: `number` or name (with * and ?) of an account; may be repeated")
	fs.Var(&c.roles, "role", "sso: `name` (with * and ?) of a role; may be repeated")
	fs.StringVar(&c.template, "name-template", setup.DefaultTemplate, "sso: `template` of the profiles' names, of {account_name}, {account_id}, {role}, {session}")
	fs.BoolVar(&o.device, "device", false, "sso: sign in with a code for a browser anywhere")
	fs.BoolVar(&o.qr, "qr", false, "sso: draw the address of --device as a QR code")
	fs.BoolVar(&o.force, "force", false, "user: replace the key pair that is in the vault")
	fs.BoolVar(&o.allowRoot, "allow-root", false, "user: take the key of an account's root user")
	fs.BoolVar(&c.dryRun, "dry-run", false, "show the change and make none")
}

func undoFlags(o *options, fs *flag.FlagSet) {
	fs.BoolVar(&o.configure.list, "list", false, "list what can be undone")
	fs.BoolVar(&o.configure.forget, "forget", false, "leave the files as they are, and have the one before be the next to undo")
}

package profiles

import "fmt"

// Kind is the kind of a link of a chain; the names are those of
// `keyfob explain --json`.
type Kind string

// The kinds of links.
const (
	KindEnvironmentKeys Kind = "environment-keys"
	KindStaticKeys      Kind = "static-keys"
	KindSessionToken    Kind = "session-token"
	KindAssumeRole      Kind = "assume-role"
	KindWebIdentity     Kind = "web-identity"
	KindSAML            Kind = "saml"
	KindOIDC            Kind = "oidc"
	KindSSO             Kind = "sso"
	KindLogin           Kind = "login"
	KindRolesAnywhere   Kind = "roles-anywhere"
	KindProcess         Kind = "process"
	KindIMDS            Kind = "imds"
	KindContainer       Kind = "container"
)

// OriginKind says which layer a value came from.
type OriginKind string

// The layers, highest first.
const (
	FromFlag        OriginKind = "flag"
	FromEnvironment OriginKind = "environment"
	FromKeystore    OriginKind = "keystore"
	FromKeyfob      OriginKind = "keyfob"
	FromCredentials OriginKind = "credentials"
	FromConfig      OriginKind = "config"
	FromDefault     OriginKind = "default"
)

// Origin is where a value stands: the layer, the variable, flag or section
// header as written, and for files the absolute path as opened and the line
// of the key, from 1.
type Origin struct {
	Kind OriginKind `json:"kind"`
	Name string     `json:"name"`
	File string     `json:"file,omitempty"`
	Line int        `json:"line,omitempty"`
}

// Redacted stands for a secret access key or a session token wherever a
// Setting is printed.
const Redacted = "[redacted]"

// Shadow is a value that lost.
type Shadow struct {
	Value  string `json:"value"`
	Origin Origin `json:"origin"`
}

// Setting is the value that won, and the ones that it shadows, nearest first
// (never nil).
type Setting struct {
	Name    string   `json:"name"` // lower case; sub-properties as parent.child
	Value   string   `json:"value"`
	Origin  Origin   `json:"origin"`
	Shadows []Shadow `json:"shadows"`
	// Skipped says why a credential_process is no link, "" otherwise.
	Skipped string `json:"skipped,omitempty"`
}

// Link is one step of a chain: what it is, whose section it comes from, and
// the parameters that decide its credentials.
type Link struct {
	Kind    Kind
	Profile string // the profile whose section the link comes from
	RoleARN string // of the kinds that end in a role
	Origin  Origin // of the setting that made it
	// Params are the effective values that decide what the link gives:
	// its own keys (role_arn, external_id, mfa_serial, duration_seconds, …)
	// as validated, and what its client needs (Client). A LinkKey is made of
	// Kind, Params and Client. For static-keys: aws_access_key_id, and
	// "layer" = keystore|keyfob|credentials|config|environment.
	// Never a secret: secrets are fetched by the source when it runs.
	Params map[string]string
	// Client is what the AWS client of this link is built from, resolved
	// for Profile.
	Client Client
	// Secrets holds the pair of a static-keys or environment-keys link that
	// stands in a file or the environment; nil when the vault has it.
	Secrets *Keys
}

// Client is the resolved settings of an AWS client (CONTRACT.md §4). The
// zero value of each field means "not set".
type Client struct {
	Region       string            // resolved; the partition's default where none is set
	EndpointURL  map[string]string // service id ("sts", "iam", "sso", …) or "" for all; empty when endpoint URLs are to be ignored
	CABundle     string
	UseFIPS      bool
	UseDualStack bool
	STSLegacy    bool // sts_regional_endpoints = legacy: the global endpoint
	MaxAttempts  int
	RetryMode    string
}

// Keys is a key pair that stands in a file or the environment. Its secret
// parts print as [redacted].
type Keys struct {
	AccessKeyID  string
	secret       string
	sessionToken string
}

// Reveal returns the secret access key and the session token ("" for none).
func (k *Keys) Reveal() (secretAccessKey, sessionToken string) { return k.secret, k.sessionToken }

// String shows the access key id alone.
func (k *Keys) String() string { return k.AccessKeyID + " " + Redacted }

// GoString is String.
func (k *Keys) GoString() string { return k.String() }

// Format makes every verb of fmt print what String does.
func (k *Keys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// Input is what profiles are read from.
type Input struct {
	ConfigFile      string // AWS config file
	CredentialsFile string // AWS credentials file
	KeyfobFile      string // keyfob's profiles file
	// Env is the daemon's environment: only AWS_* names are read from it.
	Env  map[string]string
	Home string // what ~/ in file variables means
	// Vault lists the profiles that have a long-lived pair in the vault.
	Vault map[string]VaultKey
	// Self are files that are keyfob: a credential_process that runs one of
	// them is skipped.
	Self []string
}

// VaultKey is what profiles know of a pair in the vault.
type VaultKey struct {
	AccessKeyID string // "" while the vault is locked
}

// Query asks for one profile.
type Query struct {
	Profile string
	// ProfileOrigin is where the name came from: the flag, AWS_PROFILE, …
	// Kind FromFlag means "named by a flag": the environment's own sources
	// are not used then.
	ProfileOrigin Origin
	Region        string // by --region
	RoleARN       string // by --role-arn
	CallerRegion  string // AWS_REGION or AWS_DEFAULT_REGION of the caller
	CallerVar     string // which of the two
	// PolicyInline and PolicyARNs are the session policy of an endpoint, a
	// grant, a command or a rule: the last link gets it, as
	// session_policy_inline and session_policy_arns. A chain that can't carry
	// it does not work (Profile.Err).
	PolicyInline string   // a JSON policy document, "" for none
	PolicyARNs   []string // of managed policies
}

// Profile is a resolved profile. It is immutable.
type Profile struct {
	Name     string
	Settings []Setting // by name
	Chain    []Link    // in the order in which credentials flow
	Skipped  []Skipped
	Warnings []string
	Err      *Error // why it does not work; Settings and Chain go as far as they go
	Region   string // the region for its programs, "" when none is set anywhere
	// Protected is the profile's own `protected = true`: a person confirms
	// each program that gets its credentials.
	Protected bool
}

// Skipped is a credential_process that is keyfob itself.
type Skipped struct {
	Profile string
	Origin  Origin
	Why     string
}

// Error is a fault of the files, in words for a person, with its place.
type Error struct {
	Message string // "cannot …", names both settings where two quarrel
	File    string
	Line    int
	Also    *Place // the other setting
	Help    string // hint, "" for none
	Unknown bool   // there is no such profile
	Nearest string // the nearest name when Unknown, "" for none
	// NoSource: the profile has nothing that gives credentials, and nothing
	// that is wrong: `keyfob add` or `keyfob login` would give it some.
	NoSource bool
}

// Place is a line of a file.
type Place struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

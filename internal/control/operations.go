package control

import "encoding/json"

// The methods of what a person does now and then: keys, policies, a look at
// the whole way, and what the wizard needs to know.
const (
	MethodRotate            = "rotate"             // RotateParams -> RotateResult, notices between
	MethodPolicy            = "policy"             // PolicyParams -> PolicyResult
	MethodDoctor            = "doctor"             // DoctorParams -> DoctorResult
	MethodSSOAccounts       = "sso-accounts"       // SSOAccountsParams -> SSOAccountsResult, with prompts between
	MethodMFADevices        = "mfa-devices"        // ProfileParams -> MFADevicesResult
	MethodForeignKeys       = "foreign-keys"       // ForeignKeysParams -> ForeignKeysResult
	MethodImportKey         = "import-key"         // ImportKeyParams -> AddResult
	MethodCertificateAdd    = "certificate-add"    // CertificateParams -> CertificateEntry
	MethodCertificateList   = "certificate-list"   // Empty -> CertificateListResult
	MethodCertificateRemove = "certificate-remove" // CertificateParams -> Empty
)

// RotateParams asks for a new key pair in place of the one that the vault
// holds: of the profile in Context, or with All of every profile whose pair
// is older than Due.
type RotateParams struct {
	Context
	All bool  `json:"all,omitempty"`
	Due int64 `json:"due,omitempty"` // seconds: pairs younger than that are left alone
}

// RotateResult says what became of each pair. A rotation that was broken off
// is resumed by the next one, from the step where it stood.
type RotateResult struct {
	Keys []RotatedKey `json:"keys"`
}

// RotatedKey is one pair. Several profiles may share it.
type RotatedKey struct {
	Profile  string   `json:"profile"`
	User     string   `json:"user,omitempty"` // its ARN
	Old      string   `json:"old,omitempty"`  // access key ids
	New      string   `json:"new,omitempty"`
	Also     []string `json:"also,omitempty"`     // other profiles that had the same pair
	Resumed  bool     `json:"resumed,omitempty"`  // an earlier rotation was finished
	Skipped  string   `json:"skipped,omitempty"`  // why nothing was done: too young, no pair in the vault
	Error    string   `json:"error,omitempty"`    // "cannot …"
	Hint     string   `json:"hint,omitempty"`     // what mends it
	Warnings []string `json:"warnings,omitempty"` // what is left for a person to do
}

// PolicyParams asks for the IAM policies that the chain of a profile needs.
type PolicyParams struct {
	Context
	Kind     string `json:"kind"`               // "trust" or "identity"
	Validate bool   `json:"validate,omitempty"` // by IAM Access Analyzer, signed as the profile
}

// PolicyResult has one document for each role (kind "trust") or for each
// identity that signs (kind "identity") of the chain, in the order in which
// credentials flow: the profile's own is the last.
type PolicyResult struct {
	Documents []PolicyDocument `json:"documents"`
}

// PolicyDocument is one policy.
type PolicyDocument struct {
	For      string          `json:"for"`     // ARN of the role or user it belongs to; "" where it can't be known
	Profile  string          `json:"profile"` // whose section the link comes from
	Document json.RawMessage `json:"document"`
	Notes    []string        `json:"notes,omitempty"`    // what a person must fill in or know
	Findings []PolicyFinding `json:"findings,omitempty"` // Access Analyzer's
}

// PolicyFinding is what IAM Access Analyzer says of a document.
type PolicyFinding struct {
	Type    string `json:"type"` // ERROR, SECURITY_WARNING, WARNING, SUGGESTION
	Code    string `json:"code"`
	Message string `json:"message"`
	Path    string `json:"path,omitempty"`
	Link    string `json:"link,omitempty"`
}

// DoctorParams asks for the daemon's part of the doctor's checks. Context
// names a profile to look at; without one, all of them are looked at
// without asking AWS for each.
type DoctorParams struct {
	Context
	Offline bool `json:"offline,omitempty"` // nothing outside this machine is asked
}

// DoctorResult is a list of checks, in the order in which a request goes.
type DoctorResult struct {
	Checks []Check `json:"checks"`
}

// The states of a Check.
const (
	CheckOK      = "ok"
	CheckWarning = "warning" // works, but will surprise
	CheckFailed  = "failed"
	CheckSkipped = "skipped" // could not be judged; Message says why
)

// Check is one thing that the doctor looked at.
type Check struct {
	ID      string `json:"id"`              // stable: "clock", "vault.unlocked", "sts.reachable"
	Group   string `json:"group"`           // "files", "vault", "daemon", "endpoints", "network", "profile", "environment"
	State   string `json:"state"`           // CheckOK, …
	Message string `json:"message"`         // one line
	File    string `json:"file,omitempty"`  // where it stands
	Line    int    `json:"line,omitempty"`  //
	Fix     string `json:"fix,omitempty"`   // the command that mends it, as typed
	Hint    string `json:"hint,omitempty"`  // what to do where no one command mends it
	About   string `json:"about,omitempty"` // the profile, address or variable it is about
}

// SSOAccountsParams names an Identity Center portal. The person is signed in
// to it first, where no session is valid.
type SSOAccountsParams struct {
	Context
	Session  string `json:"session,omitempty"` // name of the sso-session section
	StartURL string `json:"start_url"`
	Region   string `json:"sso_region"`
	Scopes   string `json:"scopes,omitempty"`
	Device   bool   `json:"device,omitempty"`
}

// SSOAccountsResult lists what the person may have there.
type SSOAccountsResult struct {
	Accounts []SSOAccount `json:"accounts"`
}

// SSOAccount is one account, with the names of its roles (permission sets).
type SSOAccount struct {
	ID    string   `json:"id"`
	Name  string   `json:"name,omitempty"`
	Email string   `json:"email,omitempty"`
	Roles []string `json:"roles"`
}

// MFADevicesResult lists the MFA devices of the IAM user whose keys begin
// the profile's chain, as IAM has them.
type MFADevicesResult struct {
	User    string   `json:"user"`    // ARN
	Serials []string `json:"serials"` // what mfa_serial takes; hardware keys (FIDO) left out
	Others  int      `json:"others"`  // security keys, which STS does not take
}

// ForeignKeysParams names the store of another program. Passphrase (secret)
// is that of its file backend.
type ForeignKeysParams struct {
	From       string `json:"from"`              // "aws-vault"
	Backend    string `json:"backend,omitempty"` // of 99designs/keyring; "" for the program's default here
	Dir        string `json:"dir,omitempty"`     // of its file or pass backend
	Keychain   string `json:"keychain,omitempty"`
	Passphrase string `json:"passphrase,omitempty"`
}

// ForeignKeysResult lists the names of the key pairs in it.
type ForeignKeysResult struct {
	Names []string `json:"names"`
}

// ImportKeyParams copies one of them into the vault, checked as AddParams
// are. The other program's copy is left as it is.
type ImportKeyParams struct {
	ForeignKeysParams
	Name      string `json:"name"`
	Profile   string `json:"profile"`
	Force     bool   `json:"force,omitempty"`
	AllowRoot bool   `json:"allow_root,omitempty"`
}

// CertificateParams stores a certificate and its key in the vault, for
// roles_anywhere_certificate = vault:NAME; or, with Passphrase alone, the
// passphrase or PIN of a key that stays where it is (Where). PrivateKey and
// Passphrase are secrets.
type CertificateParams struct {
	Name          string `json:"name,omitempty"`
	Certificate   string `json:"certificate,omitempty"`   // PEM, or PKCS #12 in base64
	PrivateKey    string `json:"private_key,omitempty"`   // PEM; "" where Certificate has it
	Intermediates string `json:"intermediates,omitempty"` // PEM
	Passphrase    string `json:"passphrase,omitempty"`
	Where         string `json:"where,omitempty"` // a file's absolute path or a pkcs11: URI
	Force         bool   `json:"force,omitempty"`
}

// CertificateEntry is a certificate in the vault, or a stored passphrase
// (Where alone).
type CertificateEntry struct {
	Name      string `json:"name,omitempty"`
	Subject   string `json:"subject,omitempty"`
	Serial    string `json:"serial,omitempty"` // decimal
	NotBefore string `json:"not_before,omitempty"`
	NotAfter  string `json:"not_after,omitempty"`
	Where     string `json:"where,omitempty"`
	Warning   string `json:"warning,omitempty"`
}

// CertificateListResult lists them.
type CertificateListResult struct {
	Certificates []CertificateEntry `json:"certificates"`
}

// Package control is the protocol between keyfob and keyfobd: its wire types
// and the client. It imports nothing of ours, and neither the AWS SDK, a
// keyring, nor net/http, because keyfob must start fast.
//
// One JSON object a line each way. A client writes its Hello and its Request
// in one write and need not wait between them; the daemon writes its Hello
// first, then Events while something waits, then one Reply. A connection
// may carry further Requests after a Reply. Lines are at most MaxLine bytes.
package control

import (
	"encoding/json"
	"strings"
)

// Version is the version of the protocol. A daemon answers a Hello of
// another major version with its own Hello and a Reply with CodeProtocol,
// then closes.
const Version = 1

// MaxLine bounds one line each way, in bytes.
const MaxLine = 1 << 20

// Hello is the first line in each direction.
type Hello struct {
	Keyfob  int    `json:"keyfob"`            // protocol version: the first key on the wire
	Version string `json:"version,omitempty"` // of the program
	PID     int    `json:"pid,omitempty"`     // daemon only
}

// Request is one call.
type Request struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// Reply ends a call: a Result or an Error.
type Reply struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Event is what a daemon says while a call waits. It has an "event" member
// where a Reply has "result" or "error".
type Event struct {
	ID     int     `json:"id"`
	Event  string  `json:"event"` // EventPrompt, EventNotice
	Prompt *Prompt `json:"prompt,omitempty"`
	Notice string  `json:"notice,omitempty"`
}

// The kinds of Event.
const (
	EventPrompt = "prompt" // answer it with an Answer line
	EventNotice = "notice" // a line for standard error
)

// Prompt is a question to the person behind the client.
type Prompt struct {
	Interaction string `json:"interaction"` // its id, as in Status
	Kind        string `json:"kind"`        // "mfa", …
	Profile     string `json:"profile"`
	Serial      string `json:"serial,omitempty"`
	Text        string `json:"text"`
	Error       string `json:"error,omitempty"` // why the last answer was not taken
	// The rest is by Kind: "browser" (open URL; answer "no-browser" where
	// none can be opened, else nothing: the daemon gets the redirect),
	// "device" (show URL and UserCode, answer nothing), "code" (show URL, ask
	// for text), "saml" (drive a browser to URL and answer the assertion that
	// is posted to SAMLEndpoint), "confirm" and "choice" (one of Choices).
	URL          string   `json:"url,omitempty"`
	UserCode     string   `json:"user_code,omitempty"`
	Choices      []string `json:"choices,omitempty"`
	Program      string   `json:"program,omitempty"`
	SAMLEndpoint string   `json:"saml_endpoint,omitempty"`
}

// Answer is the client's line after a Prompt: a Value, or Refused.
type Answer struct {
	ID          int    `json:"id"`
	Interaction string `json:"interaction"`
	Value       string `json:"value,omitempty"` // secret: never logged
	Refused     bool   `json:"refused,omitempty"`
}

// Code classifies an Error; the client makes its exit code of it.
type Code string

// The codes.
const (
	CodeFailed         Code = "failed"               // exit 1
	CodeUnknownProfile Code = "unknown-profile"      // exit 1
	CodeUnavailable    Code = "unavailable"          // exit 1
	CodeProtocol       Code = "protocol"             // exit 1
	CodeUsage          Code = "usage"                // exit 2
	CodeInteraction    Code = "needs-person"         // exit 3
	CodeDenied         Code = "denied"               // exit 4
	CodeExists         Code = "exists"               // exit 1: --force replaces it
	CodeNotFound       Code = "not-found"            // exit 1: there is no such grant
	CodeMismatch       Code = "environment-mismatch" // exit 1
)

// Error is a failure in words for a person: Message reads "cannot …" without
// the program's name, Hint is the rest of a line after "hint: ".
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Reason is an error's text without what could not be done, for a sentence
// that says what else can't: of "cannot get the key: no keyring answers" the
// second half.
func Reason(text string) string {
	if _, why, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(text, "cannot ") {
		return why
	}
	return text
}

// The methods, each with its Params and Result type.
const (
	MethodCredentials = "credentials"  // CredentialsParams -> CredentialsResult
	MethodAdd         = "add"          // AddParams -> AddResult
	MethodRemove      = "remove"       // ProfileParams -> Empty
	MethodList        = "list"         // Empty -> ListResult
	MethodExplain     = "explain"      // ProfileParams -> ExplainResult
	MethodStatus      = "status"       // Empty -> StatusResult
	MethodLogin       = "login"        // LoginParams -> LoginResult
	MethodLogout      = "logout"       // ProfileParams -> Empty
	MethodLock        = "lock"         // Empty -> Empty
	MethodUnlock      = "unlock"       // UnlockParams -> Empty
	MethodRecoveryKey = "recovery-key" // RecoveryKeyParams -> RecoveryKeyResult
	MethodGrantAdd    = "grant-add"    // GrantParams -> GrantResult
	MethodGrantList   = "grant-list"   // Empty -> GrantListResult
	MethodGrantRemove = "grant-remove" // GrantRemoveParams -> Empty
	MethodStop        = "stop"         // Empty -> Empty, then the daemon ends
	MethodReload      = "reload"       // Empty -> Empty
	MethodVersion     = "version"      // Empty -> VersionResult
	MethodAnswer      = "answer"       // AnswerParams -> Empty, with prompts between
	MethodAudit       = "audit"        // AuditParams -> AuditResult
	MethodAuditVerify = "audit-verify" // Empty -> AuditVerifyResult
	MethodConsole     = "console"      // ConsoleParams -> ConsoleResult
	MethodWhoami      = "whoami"       // ProfileParams -> WhoamiResult
	MethodMFAAdd      = "mfa-add"      // MFAParams -> MFAAddResult
	MethodMFAList     = "mfa-list"     // Empty -> MFAListResult
	MethodMFARemove   = "mfa-remove"   // MFAParams -> Empty
	MethodMFACode     = "mfa-code"     // MFAParams -> MFACodeResult
)

// Empty is the Params or Result of a method that has none.
type Empty struct{}

// Context is what every call that resolves a profile tells of its caller's
// environment (CONTRACT.md §2): no secret, and nothing that the daemon
// obeys except the profile's name and the region.
type Context struct {
	Profile    string            `json:"profile,omitempty"`     // as the client resolved it
	Named      bool              `json:"named,omitempty"`       // by P or --profile
	ProfileVar string            `json:"profile_var,omitempty"` // "AWS_PROFILE", "AWS_DEFAULT_PROFILE" where it came from there
	Region     string            `json:"region,omitempty"`      // by --region
	RegionEnv  string            `json:"region_env,omitempty"`  // AWS_REGION or AWS_DEFAULT_REGION of the caller
	RegionVar  string            `json:"region_var,omitempty"`  // which of the two
	RoleARN    string            `json:"role_arn,omitempty"`    // by --role-arn
	Env        map[string]string `json:"env,omitempty"`         // AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE (absolute), AWS_ENDPOINT_URL*, AWS_CA_BUNDLE, AWS_ACCESS_KEY_ID, where set
	MayAsk     bool              `json:"may_ask,omitempty"`     // the client can prompt
}

// CredentialsParams asks for credentials.
type CredentialsParams struct {
	Context
	Via string `json:"via,omitempty"` // "credential-process" (default), "exec", "env"
	SessionPolicy
}

// SessionPolicy narrows the session that is handed out (CONTRACT.md §4's
// session_policy, for one call): the same role with less.
type SessionPolicy struct {
	Policy     string   `json:"policy,omitempty"` // a JSON policy document
	PolicyARNs []string `json:"policy_arns,omitempty"`
}

// AnswerParams names an interaction that waits, as Status lists it. The
// daemon puts it to the client as a Prompt.
type AnswerParams struct {
	Interaction string `json:"interaction,omitempty"` // "" for the oldest
}

// CredentialsResult is the credential_process document, with the six fields
// of the AWS SDK's process credential provider, empty ones left out, and in
// this order. The daemon writes it as it is printed.
type CredentialsResult struct {
	Version         int    `json:"Version"`
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string `json:"SecretAccessKey"`
	SessionToken    string `json:"SessionToken,omitempty"`
	Expiration      string `json:"Expiration,omitempty"`
	AccountID       string `json:"AccountId,omitempty"`
}

// AddParams stores a key pair in the vault.
type AddParams struct {
	Context                // Env alone counts
	Profile         string `json:"profile"`
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
	Force           bool   `json:"force,omitempty"`
	AllowRoot       bool   `json:"allow_root,omitempty"`
}

// AddResult says what was stored.
type AddResult struct {
	Checked   bool   `json:"checked"` // GetCallerIdentity succeeded
	ARN       string `json:"arn,omitempty"`
	AccountID string `json:"account_id,omitempty"`
	Warning   string `json:"warning,omitempty"` // why it is unchecked; a keyring that forgets
}

// ProfileParams names a profile.
type ProfileParams struct {
	Context
}

// LoginParams signs in.
type LoginParams struct {
	Context
	Force bool   `json:"force,omitempty"`
	Code  string `json:"code,omitempty"` // an MFA code given ahead; else it is prompted for
	// Device and Remote choose another way than a browser of this machine;
	// Assertion is a SAML assertion given ahead (base64, secret).
	Device    bool   `json:"device,omitempty"`
	Remote    bool   `json:"remote,omitempty"`
	Assertion string `json:"assertion,omitempty"`
}

// LoginResult says how long the session lasts.
type LoginResult struct {
	Profile    string `json:"profile"`
	Already    bool   `json:"already,omitempty"` // a valid session was there
	AccountID  string `json:"account_id,omitempty"`
	Expiration string `json:"expiration,omitempty"`
}

// UnlockParams opens the vault; Passphrase is empty where a keyring holds
// the master key. With a recovery key it is the passphrase that the vault has
// from then on, or empty for the one that it has.
type UnlockParams struct {
	Passphrase string `json:"passphrase,omitempty"`
	Recovery   string `json:"recovery,omitempty"`
}

// RecoveryKeyParams asks for a new recovery key. Passphrase is the vault's,
// where it has one: who gives it is not asked. Anybody else is, and MayAsk
// says that the client can put the question to a person.
type RecoveryKeyParams struct {
	Passphrase string `json:"passphrase,omitempty"`
	MayAsk     bool   `json:"may_ask,omitempty"`
}

// RecoveryKeyResult is the recovery key, which is kept nowhere. A former one
// opens nothing any more.
type RecoveryKeyResult struct {
	Key string `json:"key"`
}

// GrantParams makes a grant for the container endpoint.
type GrantParams struct {
	Context
	Profiles  []string `json:"profiles"`
	Expires   int64    `json:"expires,omitempty"` // seconds from now, 0 for never
	Note      string   `json:"note,omitempty"`
	TokenFile string   `json:"token_file,omitempty"` // absolute; chosen by the daemon when empty
	ForExec   bool     `json:"for_exec,omitempty"`   // revoked when the process ExecPID ends
	ExecPID   int      `json:"exec_pid,omitempty"`
	AnyUser   bool     `json:"any_user,omitempty"`
	Relative  bool     `json:"relative,omitempty"`
	SessionPolicy
}

// GrantResult is a grant as its creator sees it. The token stands in
// TokenFile alone, or in Token.
type GrantResult struct {
	ID          string   `json:"id"`
	Profiles    []string `json:"profiles"`
	URL         string   `json:"url"`
	RelativeURI string   `json:"relative_uri,omitempty"`
	TokenFile   string   `json:"token_file,omitempty"`
	// Token (secret) is for the client to write, where the daemon's user is
	// another one and can't write for it: then TokenFile is empty.
	Token   string `json:"token,omitempty"`
	Expires string `json:"expires,omitempty"`
	Note    string `json:"note,omitempty"`
	Region  string `json:"region,omitempty"` // of the first profile
	// Settings are the first profile's other settings, credentials left
	// out, for the private config file of exec: lines of the AWS grammar.
	Settings string `json:"settings,omitempty"`
}

// GrantListResult lists the grants.
type GrantListResult struct {
	Grants []GrantResult `json:"grants"`
}

// GrantRemoveParams names a grant.
type GrantRemoveParams struct {
	ID string `json:"id"`
}

// VersionResult is the daemon's version.
type VersionResult struct {
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
	PID      int    `json:"pid"`
	OnDemand bool   `json:"on_demand"`
	Exe      string `json:"exe"`
	DataDir  string `json:"data_dir,omitempty"`
	// ProfilesFile is keyfob's own profiles file, as the daemon reads it.
	ProfilesFile string `json:"profiles_file,omitempty"`
}

// Origin is where a value stands (CONTRACT.md §3).
type Origin struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// ListResult is `keyfob list --json`.
type ListResult struct {
	Profiles []ListEntry `json:"profiles"`
}

// ListEntry is one profile of the files or the vault.
type ListEntry struct {
	Name    string       `json:"name"`
	Origins []Origin     `json:"origins"`
	Source  string       `json:"source"` // kind of the base of its chain, "" where it does not work
	Account string       `json:"account,omitempty"`
	Session *ListSession `json:"session,omitempty"`
	// KeyAdded is when the pair in the vault was stored (RFC 3339), "" where
	// there is none or it isn't known.
	KeyAdded string `json:"key_added,omitempty"`
	// Missing is what a person must do before the profile works, as a
	// command: "keyfob login P".
	Missing string `json:"missing,omitempty"`
	Error   string `json:"error,omitempty"`
}

// ListSession is the state of a profile's session.
type ListSession struct {
	AccessKeyID string `json:"access_key_id"`
	Expiration  string `json:"expiration"`
}

// ExplainResult is `keyfob explain --json`, written by package profiles.
type ExplainResult = json.RawMessage

// StatusResult is `keyfob status --json`.
type StatusResult struct {
	Version       string              `json:"version"`
	PID           int                 `json:"pid"`
	UptimeSeconds int64               `json:"uptime_seconds"`
	Keystore      KeystoreStatus      `json:"keystore"`
	Endpoints     []EndpointStatus    `json:"endpoints"`
	Sessions      []SessionStatus     `json:"sessions"`
	Interactions  []InteractionStatus `json:"interactions"`
	ReloadError   string              `json:"reload_error,omitempty"`
	Warnings      []string            `json:"warnings"`
}

// KeystoreStatus is the state of the vault.
type KeystoreStatus struct {
	Backend string `json:"backend"`
	Locked  bool   `json:"locked"`
	New     bool   `json:"new,omitempty"` // no passphrase or key was made yet
	Error   string `json:"error,omitempty"`
	Hint    string `json:"hint,omitempty"` // what opens it, where there was an error
}

// EndpointStatus is one listener.
type EndpointStatus struct {
	Kind    string `json:"kind"`
	Listen  string `json:"listen"`
	Profile string `json:"profile,omitempty"`
	// ForExec marks the listener that keyfob exec's children alone are given,
	// where no container endpoint is configured.
	ForExec bool `json:"for_exec,omitempty"`
}

// SessionStatus is one active profile. Times are RFC 3339, UTC.
type SessionStatus struct {
	Profile string `json:"profile"`
	// Region, RoleARN and Narrowed are what callers asked for in place of the
	// profile's own: a profile has one session for each such way.
	Region      string `json:"region,omitempty"`
	RoleARN     string `json:"role_arn,omitempty"`
	Narrowed    bool   `json:"narrowed,omitempty"` // by a session policy
	AccessKeyID string `json:"access_key_id"`
	AccountID   string `json:"account_id"`
	Fetched     string `json:"fetched,omitempty"`
	Expiration  string `json:"expiration"`
	NextRefresh string `json:"next_refresh"`
	LastError   string `json:"last_error,omitempty"`
	Callers     int    `json:"callers"`
	Certificate string `json:"certificate,omitempty"`
	// NeedsPerson: a link of the chain needs a person, now or soon; EndsAt is
	// when the session ends that a person must renew first.
	NeedsPerson bool   `json:"needs_person,omitempty"`
	EndsAt      string `json:"ends_at,omitempty"`
}

// Name is the profile, and what tells its sessions apart: the region
// or role that a caller asked for in place of the profile's own.
func (s SessionStatus) Name() string {
	var ways []string
	if s.Region != "" {
		ways = append(ways, s.Region)
	}
	if s.RoleARN != "" {
		ways = append(ways, s.RoleARN[strings.LastIndexByte(s.RoleARN, '/')+1:])
	}
	if s.Narrowed {
		ways = append(ways, "narrowed")
	}
	if len(ways) == 0 {
		return s.Profile
	}
	return s.Profile + " (" + strings.Join(ways, ", ") + ")"
}

// InteractionStatus is a question that waits for a person.
type InteractionStatus struct {
	ID       string `json:"id"`
	Kind     string `json:"kind"`
	Profile  string `json:"profile"`
	URL      string `json:"url,omitempty"`
	UserCode string `json:"user_code,omitempty"`
	Program  string `json:"program,omitempty"` // who asks, of kind "confirm"
	Since    string `json:"since"`
	Expires  string `json:"expires"`
	Waiting  int    `json:"waiting"`
}

// AuditParams chooses entries of the audit log; an empty field chooses all.
type AuditParams struct {
	Profile     string `json:"profile,omitempty"`
	Program     string `json:"program,omitempty"` // a path, or the last part of one
	AccessKeyID string `json:"access_key_id,omitempty"`
	Event       string `json:"event,omitempty"` // "handout" or "refusal"
	Since       string `json:"since,omitempty"` // RFC 3339
	Until       string `json:"until,omitempty"`
	Limit       int    `json:"limit,omitempty"` // the newest so many, 0 for all
	// After continues where an AuditResult ended: its Next.
	After string `json:"after,omitempty"`
}

// AuditResult is a page of entries, oldest first, as they stand in the file
// (CONTRACT.md §8).
type AuditResult struct {
	Entries []json.RawMessage `json:"entries"`
	Next    string            `json:"next,omitempty"` // "" at the end
}

// AuditVerifyResult says whether the chain of the audit log is whole.
type AuditVerifyResult struct {
	OK      bool   `json:"ok"`
	Entries int    `json:"entries"`
	Files   int    `json:"files"`
	First   string `json:"first,omitempty"` // time of the oldest entry
	Last    string `json:"last,omitempty"`
	// Where it is broken.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Warnings are what is odd and no break: entries lost to a full disk.
	Warnings []string `json:"warnings,omitempty"`
}

// ConsoleParams asks for a URL that is signed in to the AWS console as the
// profile.
type ConsoleParams struct {
	Context
	Service  string `json:"service,omitempty"`  // a service's short name: "s3"
	Duration int64  `json:"duration,omitempty"` // seconds; 0 for AWS's default
	// SwitchRole asks for that link alone, which takes no credentials.
	SwitchRole bool `json:"switch_role,omitempty"`
	// Open says that the client opens the URL itself: it then gets an address
	// of this machine that sends one browser on, once, within a minute.
	Open bool `json:"open,omitempty"`
	SessionPolicy
}

// ConsoleResult is the URL, which is a secret for as long as it is valid (15
// minutes): it is never logged.
type ConsoleResult struct {
	URL string `json:"url"`
	// SwitchRole is a link without credentials, for a person who is signed
	// in to the console already; "" where the profile is no role.
	SwitchRole string `json:"switch_role,omitempty"`
	Warning    string `json:"warning,omitempty"`
}

// WhoamiResult is who AWS says that a profile is.
type WhoamiResult struct {
	Profile    string   `json:"profile"`
	ARN        string   `json:"arn"`
	AccountID  string   `json:"account_id"`
	Alias      string   `json:"account_alias,omitempty"`
	UserID     string   `json:"user_id"`
	Region     string   `json:"region,omitempty"`
	Source     string   `json:"source"` // kind of the base of the chain
	Expiration string   `json:"expiration,omitempty"`
	Warnings   []string `json:"warnings"` // old keys, root, a user without MFA
}

// MFAParams names a device by its serial number or ARN, or by the profile in
// Context whose mfa_serial it is. Seed (secret) is base32 or an otpauth URL.
type MFAParams struct {
	Context
	Serial string `json:"serial,omitempty"`
	Seed   string `json:"seed,omitempty"`
}

// MFAAddResult has two consecutive codes, which AWS wants when a virtual
// device is enabled.
type MFAAddResult struct {
	Serial string   `json:"serial"`
	Codes  []string `json:"codes"`
}

// MFAListResult lists the devices whose seeds are in the vault.
type MFAListResult struct {
	Devices []MFADevice `json:"devices"`
}

// MFADevice is one of them.
type MFADevice struct {
	Serial string `json:"serial"`
	Added  string `json:"added,omitempty"`
}

// MFACodeResult is a code; it is good for Seconds.
type MFACodeResult struct {
	Serial  string `json:"serial"`
	Code    string `json:"code"`
	Seconds int    `json:"seconds"`
}

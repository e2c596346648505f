package profiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// A case of CONTRACT.md §4: a world, a question, what must come out.
type resolveCase struct {
	name string
	world
	q        Query             // default: profile "a", named by a flag
	chain    string            // chainOf
	settings map[string]string // name -> settingLine
	err      string            // part of the message; "" for no error
	places   string            // FILE:LINE of the error, and of the other setting
	hint     string
	warn     string            // part of the warnings; "" for none
	params   map[string]string // of the last link, "kind.key" for another link's; "-" for none
}

const user = "[profile user]\n" + pair

var resolveCases = []resolveCase{
	// precedence
	{name: "keyfob's file over credentials over config", world: world{
		config: "[profile a]\nregion = c\noutput = c\nx = c\n" + pair, credentials: "[a]\nregion = d\noutput = d\n", keyfob: "[profile a]\nregion = k\n",
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{
		"region": "k @ profiles:2 < d @ credentials:2 < c @ config:2", "output": "d @ credentials:3 < c @ config:3", "x": "c @ config:4"}},
	{name: "environment over files, AWS_REGION over AWS_DEFAULT_REGION", world: world{
		config: "[profile a]\nregion = c\n" + pair, env: map[string]string{"AWS_REGION": "r", "AWS_DEFAULT_REGION": "d"},
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"region": "r @ environment AWS_REGION < d @ environment AWS_DEFAULT_REGION < c @ config:2"}},
	{name: "a blank variable counts as unset", world: world{
		config: "[profile a]\nregion = c\n" + pair, env: map[string]string{"AWS_REGION": " ", "AWS_DEFAULT_REGION": "", "AWS_ACCESS_KEY_ID": " "},
	}, q: Query{Profile: "a"}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"region": "c @ config:2"}},
	{name: "flag over caller over daemon over files", world: world{
		config: "[profile a]\nregion = c\n" + pair, env: map[string]string{"AWS_REGION": "d"},
	}, q: Query{Profile: "a", ProfileOrigin: Origin{Kind: FromFlag}, Region: "f", CallerRegion: "e", CallerVar: "AWS_DEFAULT_REGION"},
		chain:    "static-keys(a) -> session-token(a)",
		settings: map[string]string{"region": "f @ flag --region < e @ environment AWS_DEFAULT_REGION < d @ environment AWS_REGION < c @ config:2"},
		params:   map[string]string{"region": "d"}}, // of the MFA session: never multiplied by callers' regions
	{name: "the region of a caller is that of the last role alone", world: world{
		config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nmfa_serial = " + testMFA + "\n",
	}, q: Query{Profile: "a", ProfileOrigin: Origin{Kind: FromFlag}, CallerRegion: "e", CallerVar: "AWS_REGION"},
		chain: "static-keys(user) -> session-token(user) -> assume-role(a)", params: map[string]string{"region": "e", "session-token.region": "us-east-1"}},
	{name: "an empty value wins and counts as not set", world: world{
		config: "[profile a]\nregion = c\n" + pair, keyfob: "[profile a]\nregion =\n",
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"region": " @ profiles:2 < c @ config:2"}, params: map[string]string{"region": "us-east-1"}},
	{name: "an empty source_profile unsets one", world: world{
		config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = gone\n", keyfob: "[profile a]\nsource_profile =\nrole_arn =\n" + pair,
	}, chain: "static-keys(a) -> session-token(a)"},
	{name: "an earlier duplicate is a shadow", world: world{
		config: "[profile a]\nregion = 1\n[profile a]\nregion = 2\nregion = 3\n" + pair,
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"region": "3 @ config:5 < 2 @ config:4 < 1 @ config:2"}},
	{name: "a block is replaced whole", world: world{
		config: "[profile a]\ns3 =\n  x = 1\n  y = 2\n" + pair, credentials: "[a]\ns3 =\n  x = 3\n",
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"s3.x": "3 @ credentials:3 < 1 @ config:3", "s3.y": "none"}, warn: "config:4: s3.y is not used: the block at"},
	{name: "a value replaces a block", world: world{
		config: "[profile a]\ns3 =\n  x = 1\n  aws_secret_access_key = " + testSecret + "\n" + pair, credentials: "[a]\ns3 = v\n",
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"s3": "v @ credentials:2 < x = 1\naws_secret_access_key = [redacted] @ config:2", "s3.x": "none"}},
	{name: "a value below a block is its shadow", world: world{
		config: "[profile a]\ns3 = v\n" + pair, credentials: "[a]\ns3 =\n  x = 1\n",
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"s3.x": "1 @ credentials:3 < v @ config:2"}},

	// the credential is one setting
	{name: "vault before files", world: world{
		config: "[profile a]\n" + pair, vault: map[string]VaultKey{"a": {AccessKeyID: "AKIAVAULT"}},
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{
		"aws_access_key_id": "AKIAVAULT @ keystore a < " + testID + " @ config:2", "aws_secret_access_key": "[redacted] @ keystore a < [redacted] @ config:3"},
		params: map[string]string{"static-keys.layer": "keystore", "static-keys.aws_access_key_id": "AKIAVAULT", "static-keys.secret": "-"}},
	{name: "keyfob's file before credentials before config", world: world{
		config:      "[profile a]\naws_access_key_id = C\naws_secret_access_key = c\naws_session_token = t\n",
		credentials: "[a]\naws_access_key_id = D\naws_secret_access_key = d\n",
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{
		"aws_access_key_id": "D @ credentials:2 < C @ config:2", "aws_session_token": " @ credentials:2 < [redacted] @ config:4"},
		params: map[string]string{"static-keys.layer": "credentials", "static-keys.secret": "d", "static-keys.token": ""}},
	{name: "half a pair in the layer that wins", world: world{
		config: "[profile a]\n" + pair, credentials: "[a]\nregion = x\naws_access_key_id = D\n",
	}, err: "credentials:3 has aws_access_key_id and no aws_secret_access_key", places: "credentials:3"},
	{name: "half a pair, the other half", world: world{config: "[profile a]\naws_secret_access_key = d\n"},
		err: "has aws_secret_access_key and no aws_access_key_id", places: "config:2"},
	{name: "half a pair, its other half empty", world: world{config: "[profile a]\naws_access_key_id = D\naws_secret_access_key =\n"},
		err: "no aws_secret_access_key", places: "config:2"},
	{name: "a session token alone", world: world{config: "[profile a]\n" + pair, keyfob: "[profile a]\naws_session_token = t\n"},
		err: "has aws_session_token and no aws_access_key_id", places: "profiles:2"},
	{name: "half a pair below", world: world{config: "[profile a]\naws_access_key_id = C\n", credentials: "[a]\n" + pair},
		chain: "static-keys(a) -> session-token(a)", warn: "config:2: half a key pair"},
	{name: "half a pair of a source", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = u\n[profile u]\naws_access_key_id = C\n"},
		err: "cannot use profile u", places: "config:5", chain: "assume-role(a)"},
	{name: "empty keys win and are none", world: world{config: "[profile a]\n" + pair, credentials: "[a]\naws_access_key_id =\naws_secret_access_key =\n"},
		err: "cannot find credentials for profile a", places: "credentials:1"},

	// the environment's own sources
	{name: "environment keys before AWS_PROFILE", world: world{
		config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\n",
		env:    map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret},
	}, q: Query{Profile: "a", ProfileOrigin: fromEnvironment("AWS_PROFILE")}, chain: "environment-keys(a) -> session-token(a)",
		settings: map[string]string{"aws_access_key_id": "AKIAENV @ environment AWS_ACCESS_KEY_ID", "aws_secret_access_key": "[redacted] @ environment AWS_SECRET_ACCESS_KEY"},
		params:   map[string]string{"environment-keys.secret": testSecret, "duration_seconds": "43200"}},
	{name: "environment keys with a token are used as they are", world: world{
		env: map[string]string{"AWS_ACCESS_KEY_ID": "ASIAENV", "AWS_SECRET_ACCESS_KEY": testSecret, "AWS_SESSION_TOKEN": testToken},
	}, q: Query{Profile: "default"}, chain: "environment-keys(default)", params: map[string]string{"token": testToken}},
	{name: "environment keys are not used below a flag", world: world{
		config: "[profile a]\n" + pair, env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret},
	}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"aws_access_key_id": testID + " @ config:2"}},
	{name: "half of the environment's pair", world: world{config: "[profile a]\n" + pair, env: map[string]string{"AWS_SECRET_ACCESS_KEY": testSecret}},
		q: Query{Profile: "a"}, err: "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"},
	{name: "environment keys shadow the files'", world: world{
		config: "[profile a]\n" + pair + "aws_session_token = " + testToken + "\n", env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret},
	}, q: Query{Profile: "a"}, chain: "environment-keys(a) -> session-token(a)",
		settings: map[string]string{"aws_access_key_id": "AKIAENV @ environment AWS_ACCESS_KEY_ID < " + testID + " @ config:2",
			"aws_session_token": " @ environment AWS_ACCESS_KEY_ID < [redacted] @ config:4"}},
	{name: "--role-arn on the environment's keys", world: world{env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret}},
		q: Query{RoleARN: testRole}, chain: "environment-keys(default) -> assume-role(default)"},
	{name: "web identity of the environment", world: world{
		config: "[profile a]\n" + pair, home: "/home/alice",
		env: map[string]string{"AWS_ROLE_ARN": testRole, "AWS_WEB_IDENTITY_TOKEN_FILE": "~/token", "AWS_ROLE_SESSION_NAME": "me"},
	}, q: Query{Profile: "a"}, chain: "web-identity(a)",
		params: map[string]string{"web_identity_token_file": filepath.Join("/home/alice", "token"), "role_session_name": "me", "role_arn": testRole}},
	{name: "web identity of the environment is not used below a flag", world: world{
		config: "[profile a]\n" + pair, env: map[string]string{"AWS_ROLE_ARN": testRole, "AWS_WEB_IDENTITY_TOKEN_FILE": "/t"},
	}, chain: "static-keys(a) -> session-token(a)"},
	{name: "AWS_ROLE_ARN alone completes nothing", world: world{config: "[profile a]\n" + pair, env: map[string]string{"AWS_ROLE_ARN": testRole}},
		q: Query{Profile: "a"}, chain: "static-keys(a) -> session-token(a)", settings: map[string]string{"role_arn": "none"}},
	{name: "AWS_WEB_IDENTITY_TOKEN_FILE alone", world: world{config: "[profile a]\n" + pair, env: map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}},
		q: Query{Profile: "a"}, err: "AWS_ROLE_ARN is not set"},

	// order inside a profile
	{name: "role before static keys", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\n" + pair},
		chain: "static-keys(user) -> assume-role(a)"},
	{name: "web identity before static keys", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nweb_identity_token_file = /t\n" + pair},
		chain: "web-identity(a)", params: map[string]string{"duration_seconds": "3600"}},
	{name: "static keys before SSO", world: world{config: "[profile a]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = x\n" + pair},
		chain: "static-keys(a) -> session-token(a)"},
	{name: "SSO before login_session", world: world{config: "[profile a]\nlogin_session = arn:aws:iam::1:user/x\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = x\n"},
		chain: "sso(a)", params: map[string]string{"sso_start_url": "u", "sso_region": "r", "region": "r", "sso_account_id": "1", "sso_role_name": "x"}},
	{name: "login_session before credential_process", world: world{config: "[profile a]\nlogin_session = arn:aws-cn:iam::1:user/x\ncredential_process = /p\n"},
		chain: "login(a)", params: map[string]string{"login_session": "arn:aws-cn:iam::1:user/x", "region": "cn-north-1"}},
	{name: "credential_process", world: world{config: "[profile a]\ncredential_process = /p --x=y\n"},
		chain: "process(a)", params: map[string]string{"credential_process": "/p --x=y", "hand_out": "true", "region": "us-east-1"}},
	{name: "a source's static keys end the chain", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nrole_arn = x\nsource_profile = user\n" + pair + user},
		chain: "static-keys(b) -> assume-role(a)"},
	{name: "a source's static keys in the vault end the chain", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nrole_arn = x\nsource_profile = user\n" + user, vault: map[string]VaultKey{"b": {}}},
		chain: "static-keys(b) -> assume-role(a)", params: map[string]string{"static-keys.layer": "keystore", "static-keys.profile": "b"}},
	{name: "a source's static keys hide its contradictions", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nrole_arn = x\n" + pair},
		chain: "static-keys(b) -> assume-role(a)"},
	{name: "roles upon roles", world: world{config: user + "[profile b]\nrole_arn = arn:aws:iam::1:role/b\nsource_profile = user\n[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n"},
		chain: "static-keys(user) -> assume-role(b) -> assume-role(a)"},
	{name: "a role upon SSO", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = x\n"},
		chain: "sso(b) -> assume-role(a)", params: map[string]string{"region": "us-east-1"}},
	{name: "a role upon login_session", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nlogin_session = x\n"},
		chain: "login(b) -> assume-role(a)"},
	{name: "a role upon a process", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\ncredential_process = p\n"},
		chain: "process(b) -> assume-role(a)"},
	{name: "a role upon a web identity", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nrole_arn = arn:aws:iam::1:role/b\nweb_identity_token_file = /t\n"},
		chain: "web-identity(b) -> assume-role(a)"},
	{name: "nothing found", world: world{config: "[profile a]\nregion = x\n"}, err: "cannot find credentials for profile a", places: "config:1", hint: "keyfob add a"},
	{name: "a source with nothing", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nregion = x\n"},
		err: "cannot find credentials for profile b", places: "config:4", chain: "assume-role(a)"},
	{name: "a source that is not there", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = usr\n"},
		err: "names usr, and there is no such profile", places: "config:6", hint: "did you mean user?", chain: "assume-role(a)"},
	{name: "a self-reference takes the own keys", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = a\n" + pair},
		chain: "static-keys(a) -> assume-role(a)"},
	{name: "a self-reference takes the own SSO", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = a\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = x\n"},
		chain: "sso(a) -> assume-role(a)"},
	{name: "a self-reference takes the own process", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = a\ncredential_process = p\n"},
		chain: "process(a) -> assume-role(a)"},
	{name: "source_profile without role_arn", world: world{config: user + "[profile a]\nsource_profile = user\n" + pair},
		chain: "static-keys(a) -> session-token(a)", warn: "config:5: source_profile without role_arn"},

	// credential_source
	{name: "credential_source Environment", world: world{config: "[profile a]\nrole_arn = " + testRole + "\ncredential_source = Environment\n",
		env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret}}, chain: "environment-keys(a) -> assume-role(a)"},
	{name: "credential_source Environment without keys", world: world{config: "[profile a]\nrole_arn = " + testRole + "\ncredential_source = Environment\n"},
		err: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set", places: "config:3", chain: "assume-role(a)"},
	{name: "credential_source Ec2InstanceMetadata", world: world{config: "[profile a]\nrole_arn = " + testRole + "\ncredential_source = Ec2InstanceMetadata\nec2_metadata_service_endpoint = http://x\n",
		env: map[string]string{"AWS_EC2_METADATA_V1_DISABLED": "true"}}, chain: "imds(a) -> assume-role(a)",
		params: map[string]string{"imds.ec2_metadata_service_endpoint": "http://x", "imds.ec2_metadata_v1_disabled": "true"}},
	{name: "credential_source EcsContainer", world: world{config: "[profile a]\nrole_arn = " + testRole + "\ncredential_source = EcsContainer\n",
		env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": testToken}}, chain: "container(a) -> assume-role(a)",
		params: map[string]string{"container.full_uri": "http://127.0.0.1/x", "container.token": testToken}},
	{name: "credential_source unknown", world: world{config: "[profile a]\nrole_arn = " + testRole + "\ncredential_source = Moon\n"},
		err: "must be Environment, Ec2InstanceMetadata or EcsContainer", places: "config:3", chain: "assume-role(a)"},

	// contradictions
	{name: "source_profile with credential_source", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\n", keyfob: "[profile a]\ncredential_source = Environment\n"},
		err: "exclude each other", places: "config:6 profiles:2"},
	{name: "source_profile with web_identity_token_file", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nweb_identity_token_file = t\n"},
		err: "exclude each other", places: "config:6 config:7"},
	{name: "credential_source with web_identity_token_file", world: world{config: "[profile a]\nrole_arn = " + testRole + "\ncredential_source = Environment\nweb_identity_token_file = t\n"},
		err: "exclude each other", places: "config:3 config:4"},
	{name: "role_arn with own static keys and no source", world: world{config: "[profile a]\nrole_arn = " + testRole + "\n", credentials: "[a]\n" + pair},
		err: "role_arn", places: "config:2 credentials:2", hint: "source_profile = a"},
	{name: "role_arn with keys in the vault and no source", world: world{config: "[profile a]\nrole_arn = " + testRole + "\n", vault: map[string]VaultKey{"a": {}}},
		err: "aws_access_key_id (keyfob's vault)", places: "config:2", hint: "source_profile = a"},
	{name: "role_arn with sso_* and no source", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = x\n"},
		err: "sso_start_url", places: "config:2 config:3", hint: "source_profile = a"},
	{name: "role_arn alone", world: world{config: "[profile a]\nrole_arn = " + testRole + "\n"}, err: "needs source_profile", places: "config:2"},
	{name: "role_arn with a process and no source", world: world{config: "[profile a]\nrole_arn = " + testRole + "\ncredential_process = p\n"},
		err: "needs source_profile", places: "config:2", hint: "source_profile = a"},
	{name: "credential_source alone", world: world{config: "[profile a]\ncredential_source = Environment\n" + pair}, err: "credential_source", places: "config:2"},
	{name: "web_identity_token_file alone", world: world{config: "[profile a]\nweb_identity_token_file = t\n" + pair}, err: "needs role_arn", places: "config:2"},
	{name: "saml_url alone: the person chooses", world: world{config: "[profile a]\nsaml_url = t\n"}, chain: "saml(a)"},
	{name: "oidc_issuer alone", world: world{config: "[profile a]\noidc_issuer = t\noidc_client_id = c\n"}, err: "needs role_arn", places: "config:2"},
	{name: "two of keyfob's kinds", world: world{config: "[profile a]\nrole_arn = " + testRole + "\noidc_issuer = i\noidc_client_id = c\nsaml_url = u\n"},
		err: "exclude each other", places: "config:5 config:3"},
	{name: "saml_url with saml_process", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsaml_url = u\nsaml_process = p\n"}, err: "exclude each other", places: "config:3 config:4"},
	{name: "source_profile with one of keyfob's kinds", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nsaml_url = u\n"},
		err: "exclude each other", places: "config:6 config:7"},
	{name: "an sso key that differs from its session", world: world{config: "[profile a]\nsso_session = s\nsso_region = x\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = y\nsso_start_url = u\n"},
		err: "differs", places: "config:3 config:7"},
	{name: "an sso key that its session lacks", world: world{config: "[profile a]\nsso_session = s\nsso_start_url = u\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = y\n"},
		err: "has none", places: "config:3 config:6"},
	{name: "sso scopes that differ", world: world{config: "[profile a]\nsso_session = s\nsso_registration_scopes = x\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = y\nsso_start_url = u\nsso_registration_scopes = z\n"},
		err: "differs", places: "config:3 config:9"},

	// cycles
	{name: "a cycle", world: world{config: "[profile a]\nrole_arn = x\nsource_profile = b\n[profile b]\nrole_arn = y\nsource_profile = a\n"},
		err: "a -> b -> a", places: "config:3 config:6"},
	{name: "a cycle where a member has static keys", world: world{config: "[profile a]\nrole_arn = x\nsource_profile = b\n[profile b]\nrole_arn = y\nsource_profile = a\n" + pair},
		err: "cycle", places: "config:3 config:6"},
	{name: "a cycle where the asked one has static keys", world: world{config: "[profile a]\nrole_arn = x\nsource_profile = b\n" + pair + "[profile b]\nrole_arn = y\nsource_profile = a\n"},
		err: "cycle", places: "config:3 config:8"},
	{name: "a cycle further down", world: world{config: "[profile a]\nrole_arn = x\nsource_profile = b\n[profile b]\nrole_arn = y\nsource_profile = c\n[profile c]\nrole_arn = z\nsource_profile = b\n"},
		err: "b -> c -> b", places: "config:6 config:9"},
	{name: "a self-reference without credentials", world: world{config: "[profile a]\nrole_arn = x\nsource_profile = a\n"},
		err: "is the profile itself", places: "config:3 config:2"},
	{name: "a source_profile without role_arn closes no cycle", world: world{config: "[profile a]\nrole_arn = x\nsource_profile = b\n[profile b]\nsource_profile = a\n" + pair},
		chain: "static-keys(b) -> assume-role(a)"},

	// SSO
	{name: "an sso-session", world: world{config: "[profile a]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\nregion = eu\n[sso-session s]\nsso_region = y\nsso_start_url = u\nsso_registration_scopes = z\n"},
		chain: "sso(a)", settings: map[string]string{"sso_region": "y @ config:7", "sso_start_url": "u @ config:8"},
		params: map[string]string{"sso_session": "s", "sso_region": "y", "sso_start_url": "u", "sso_registration_scopes": "z", "region": "y"}},
	{name: "an sso-session over two files, and equal keys beside it", world: world{
		config: "[profile a]\nsso_session = s\nsso_region = y\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = x\nsso_start_url = u\n",
		keyfob: "[sso-session s]\nsso_region = y\n"},
		chain: "sso(a)", settings: map[string]string{"sso_region": "y @ config:3 < y @ profiles:2 < x @ config:7"}},
	{name: "an empty key beside an sso-session", world: world{config: "[profile a]\nsso_session = s\nsso_region =\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = y\nsso_start_url = u\n"},
		chain: "sso(a)", settings: map[string]string{"sso_region": "y @ config:7 <  @ config:3"}},
	{name: "no such sso-session", world: world{config: "[profile a]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"}, err: "there is no [sso-session s]", places: "config:2"},
	{name: "an sso-session without a region", world: world{config: "[profile a]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_start_url = u\n"},
		err: "has no sso_region", places: "config:5 config:2"},
	{name: "an sso-session alone gives no keys", world: world{config: "[profile a]\nsso_session = s\n[sso-session s]\nsso_region = y\nsso_start_url = u\n"},
		err: "needs sso_account_id and sso_role_name", places: "config:2"},
	{name: "an sso-session alone beside a process", world: world{config: "[profile a]\nsso_session = s\ncredential_process = p\n[sso-session s]\nsso_region = y\nsso_start_url = u\n"}, chain: "process(a)"},
	{name: "SSO without a role name", world: world{config: "[profile a]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\n"}, err: "needs sso_role_name", places: "config:2"},
	{name: "SSO without a region", world: world{config: "[profile a]\nsso_start_url = u\nsso_role_name = r\nsso_account_id = 1\n"}, err: "needs sso_region", places: "config:2"},

	// keyfob's own kinds
	{name: "saml", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsaml_url = u\nprincipal_arn = p\nrole_session_name = n\n"},
		chain: "saml(a)", params: map[string]string{"saml_url": "u", "principal_arn": "p", "role_session_name": "n", "duration_seconds": "-"}},
	{name: "saml with a duration", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nsaml_process = u\nduration_seconds = 7200\n"},
		chain: "saml(a)", params: map[string]string{"saml_process": "u", "duration_seconds": "7200"}},
	{name: "oidc", world: world{config: "[profile a]\nrole_arn = " + testRole + "\noidc_issuer = i\noidc_client_id = c\noidc_redirect_port = 8400\n"},
		chain: "oidc(a)", params: map[string]string{"oidc_issuer": "i", "oidc_client_id": "c", "oidc_scopes": "openid,offline_access", "oidc_redirect_port": "8400", "duration_seconds": "3600"}},
	{name: "oidc without a client", world: world{config: "[profile a]\nrole_arn = " + testRole + "\noidc_issuer = i\n"}, err: "needs oidc_client_id", places: "config:3"},
	{name: "roles anywhere", world: world{home: "/h", config: "[profile a]\nregion = eu-west-1\nrole_arn = " + testRole + "\nroles_anywhere_trust_anchor_arn = arn:aws:rolesanywhere:eu-central-1:1:trust-anchor/x\nroles_anywhere_profile_arn = p\nroles_anywhere_certificate = ~/c.pem\nroles_anywhere_private_key = vault:k\n"},
		chain: "roles-anywhere(a)", params: map[string]string{"region": "eu-central-1", "roles_anywhere_certificate": filepath.Join("/h", "c.pem"), "roles_anywhere_private_key": "vault:k", "roles_anywhere_profile_arn": "p"}},
	{name: "roles anywhere without a certificate", world: world{config: "[profile a]\nrole_arn = " + testRole + "\nroles_anywhere_trust_anchor_arn = t\nroles_anywhere_profile_arn = p\n"},
		err: "needs roles_anywhere_certificate", places: "config:3"},

	// a role's settings
	{name: "all of a role's settings", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nexternal_id = e\nrole_session_name = n\nsource_identity = i\n" +
		"session_tags = k=v, l = w=x\ntransitive_session_tags = k\nsession_policy = /p.json\nsession_policy_arns = x,y\nduration_seconds = 0900\n"},
		chain: "static-keys(user) -> assume-role(a)", params: map[string]string{"external_id": "e", "role_session_name": "n", "source_identity": "i", "session_tags": "k=v, l = w=x",
			"transitive_session_tags": "k", "session_policy": "/p.json", "session_policy_arns": "x,y", "duration_seconds": "900", "mfa_serial": "-"}},
	{name: "a duration too short", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nduration_seconds = 899\n"},
		err: "must be a number from 900 to 43200", places: "config:7", chain: "static-keys(user)"},
	{name: "a duration too long", world: world{config: "[profile a]\nduration_seconds = 43201\n" + pair}, err: "must be a number from 900 to 43200", places: "config:2", chain: "static-keys(a)"},
	{name: "a duration that is no number", world: world{config: "[profile a]\nduration_seconds = 1h\n" + pair}, err: "must be a number", places: "config:2", chain: "static-keys(a)"},
	{name: "a duration with a sign", world: world{config: "[profile a]\nduration_seconds = +3600\n" + pair}, err: "must be a number", places: "config:2", chain: "static-keys(a)"},
	{name: "a bad duration where no link asks for it", world: world{config: "[profile a]\ncredential_process = p\nduration_seconds = x\n"}, err: "must be a number", places: "config:3", chain: "process(a)"},
	{name: "the shortest duration", world: world{config: "[profile a]\nduration_seconds = 900\n" + pair}, chain: "static-keys(a) -> session-token(a)", params: map[string]string{"duration_seconds": "900"}},
	{name: "the longest duration", world: world{config: "[profile a]\nduration_seconds = 0000043200\n" + pair}, err: "must be a number", places: "config:2", chain: "static-keys(a)"},
	{name: "tags that are none", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nsession_tags = k\n"},
		err: "key=value", places: "config:7", chain: "static-keys(user)"},
	{name: "a tag twice", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nsession_tags = k=1,K=2\n"},
		err: "twice", places: "config:7", chain: "static-keys(user)"},
	{name: "a transitive tag that is none", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nsession_tags = k=1\ntransitive_session_tags = j\n"},
		chain: "static-keys(user) -> assume-role(a)", warn: "config:8: transitive_session_tags names j"},
	{name: "aws-vault's include_profile", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\ninclude_profile = user\n"},
		chain: "static-keys(user) -> assume-role(a)", warn: "config:7: include_profile is aws-vault's"},
	{name: "aws-vault's parent_profile beside plain keys", world: world{config: "[profile a]\nparent_profile = user\n" + pair},
		chain: "static-keys(a) -> session-token(a)", warn: "config:2: parent_profile is aws-vault's"},
	{name: "an hour is the limit of chained roles", world: world{config: user + "[profile b]\nrole_arn = arn:aws:iam::1:role/b\nsource_profile = user\nduration_seconds = 7200\n[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\nduration_seconds = 7200\n"},
		chain: "static-keys(user) -> assume-role(b) -> assume-role(a)", warn: "config:11: AWS limits"},

	// --role-arn
	{name: "--role-arn without a source takes the own keys", world: world{config: "[profile a]\n" + pair}, q: Query{Profile: "a", ProfileOrigin: Origin{Kind: FromFlag}, RoleARN: testRole},
		chain: "static-keys(a) -> assume-role(a)", settings: map[string]string{"role_arn": testRole + " @ flag --role-arn"}, params: map[string]string{"role_arn": testRole}},
	{name: "--role-arn over the profile's role without a source", world: world{config: "[profile a]\nrole_arn = other\n" + pair}, q: Query{Profile: "a", ProfileOrigin: Origin{Kind: FromFlag}, RoleARN: testRole},
		chain: "static-keys(a) -> assume-role(a)", settings: map[string]string{"role_arn": testRole + " @ flag --role-arn < other @ config:2"}},
	{name: "--role-arn with a source", world: world{config: user + "[profile a]\nrole_arn = other\nsource_profile = user\nexternal_id = e\n"}, q: Query{Profile: "a", ProfileOrigin: Origin{Kind: FromFlag}, RoleARN: testRole},
		chain: "static-keys(user) -> assume-role(a)", params: map[string]string{"role_arn": testRole, "external_id": "e"}},
	{name: "--role-arn on SSO", world: world{config: "[profile a]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = x\n"}, q: Query{Profile: "a", ProfileOrigin: Origin{Kind: FromFlag}, RoleARN: testRole},
		chain: "sso(a) -> assume-role(a)"},
	{name: "--role-arn on nothing", world: world{config: "[profile a]\nregion = x\n"}, q: Query{Profile: "a", ProfileOrigin: Origin{Kind: FromFlag}, RoleARN: testRole},
		err: "cannot find credentials", places: "config:1", chain: "assume-role(a)"},

	// sessions of long-lived keys
	{name: "handed out", world: world{config: "[profile a]\n" + pair}, chain: "static-keys(a) -> session-token(a)", params: map[string]string{"duration_seconds": "43200", "mfa_serial": "-"}},
	{name: "handed out with MFA", world: world{config: "[profile a]\nmfa_serial = " + testMFA + "\nmfa_process = p\nduration_seconds = 3600\n" + pair},
		chain: "static-keys(a) -> session-token(a)", params: map[string]string{"duration_seconds": "3600", "mfa_serial": testMFA, "mfa_process": "p"}},
	{name: "no MFA: they sign directly", world: world{config: user + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\n"}, chain: "static-keys(user) -> assume-role(a)"},
	{name: "MFA of the role", world: world{config: user + "duration_seconds = 7200\n[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nmfa_serial = " + testMFA + "\nduration_seconds = 1800\n"},
		chain: "static-keys(user) -> session-token(user) -> assume-role(a)", params: map[string]string{"session-token.mfa_serial": testMFA, "session-token.duration_seconds": "7200", "mfa_serial": "-", "duration_seconds": "1800"}},
	{name: "MFA of the source", world: world{config: user + "mfa_serial = " + testMFA + "\n[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\n"},
		chain: "static-keys(user) -> session-token(user) -> assume-role(a)", params: map[string]string{"session-token.mfa_serial": testMFA}},
	{name: "MFA of a role above a role is spent at the bottom", world: world{config: user + "[profile b]\nrole_arn = arn:aws:iam::1:role/b\nsource_profile = user\n[profile a]\nrole_arn = " + testRole + "\nsource_profile = b\nmfa_serial = " + testMFA + "\n"},
		chain: "static-keys(user) -> session-token(user) -> assume-role(b) -> assume-role(a)"},
	{name: "two devices", world: world{config: user + "mfa_serial = one\n[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\nmfa_serial = two\n"},
		chain: "static-keys(user) -> session-token(user) -> assume-role(a)", params: map[string]string{"session-token.mfa_serial": "one"}, warn: "config:8: mfa_serial is not used"},
	{name: "keys with a session token are used as they are", world: world{config: "[profile a]\naws_session_token = t\nmfa_serial = x\n" + pair}, chain: "static-keys(a)", params: map[string]string{"token": "t"}},
	{name: "MFA above a session stays with the role", world: world{config: "[profile s]\naws_session_token = t\n" + pair + "[profile a]\nrole_arn = " + testRole + "\nsource_profile = s\nmfa_serial = x\nmfa_process = p\n"},
		chain: "static-keys(s) -> assume-role(a)", params: map[string]string{"mfa_serial": "x", "mfa_process": "p"}},
	{name: "MFA above SSO stays with the role", world: world{config: "[profile s]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = x\n[profile a]\nrole_arn = " + testRole + "\nsource_profile = s\nmfa_serial = x\n"},
		chain: "sso(s) -> assume-role(a)", params: map[string]string{"mfa_serial": "x"}},

	// regions and clients
	{name: "the partition's default region, China", world: world{config: user + "[profile a]\nrole_arn = arn:aws-cn:iam::1:role/r\nsource_profile = user\nmfa_serial = arn:aws-cn:iam::1:mfa/x\n"},
		chain: "static-keys(user) -> session-token(user) -> assume-role(a)", params: map[string]string{"region": "cn-north-1", "session-token.region": "cn-north-1", "static-keys.region": "cn-north-1"}},
	{name: "the partition's default region, GovCloud", world: world{config: user + "[profile a]\nrole_arn = arn:aws-us-gov:iam::1:role/r\nsource_profile = user\n"},
		chain: "static-keys(user) -> assume-role(a)", params: map[string]string{"region": "us-gov-west-1"}},
	{name: "each link has its own profile's region", world: world{config: user + "region = eu-north-1\n[profile a]\nregion = eu-west-1\nrole_arn = " + testRole + "\nsource_profile = user\nmfa_serial = x\n"},
		chain: "static-keys(user) -> session-token(user) -> assume-role(a)", params: map[string]string{"region": "eu-west-1", "session-token.region": "eu-north-1"}},
	{name: "a bad max_attempts", world: world{config: "[profile a]\nmax_attempts = many\n" + pair}, err: "max_attempts", places: "config:2", chain: "static-keys(a) -> session-token(a)"},
	{name: "a bad retry_mode", world: world{config: "[profile a]\nretry_mode = often\n" + pair}, err: "retry_mode", places: "config:2", chain: "static-keys(a) -> session-token(a)"},
	{name: "a bad switch in the environment", world: world{config: "[profile a]\n" + pair, env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "maybe"}},
		err: "use_fips_endpoint (the variable AWS_USE_FIPS_ENDPOINT) must be true or false", chain: "static-keys(a) -> session-token(a)"},
	{name: "no such services section", world: world{config: "[profile a]\nservices = s\n" + pair}, err: "there is no [services s]", places: "config:2", chain: "static-keys(a) -> session-token(a)"},
}

func TestResolve(t *testing.T) {
	for _, c := range resolveCases {
		t.Run(c.name, func(t *testing.T) {
			if reflect.ValueOf(c.q).IsZero() {
				c.q = byFlag("a")
			}
			p := c.resolve(t, c.q)
			if got := chainOf(p); got != c.chain {
				t.Errorf("chain is  %s\nwant      %s", got, c.chain)
			}
			checkError(t, p.Err, c.err, c.places)
			if c.hint != "" && (p.Err == nil || p.Err.Hint() != c.hint) {
				t.Errorf("hint is %q, want %q", p.Err.Hint(), c.hint)
			}
			for name, want := range c.settings {
				if got := settingLine(p, name); got != want {
					t.Errorf("%s is  %s\nwant  %s", name, got, want)
				}
			}
			all := strings.Join(p.Warnings, "\n")
			if c.warn == "" && all != "" || !strings.Contains(all, c.warn) {
				t.Errorf("warnings are %q, want %q", all, c.warn)
			}
			for key, want := range c.params {
				if runtime.GOOS == "windows" && strings.HasPrefix(filepath.ToSlash(want), "/") {
					continue // no absolute path there
				}
				if got := param(t, p, key); got != want {
					t.Errorf("param %s is %q, want %q", key, got, want)
				}
			}
			for _, s := range []string{fmt.Sprintf("%v", p.Chain), fmt.Sprintf("%+v", p.Settings), fmt.Sprintf("%#v", p.Explain()), all} {
				if strings.Contains(s, testSecret) || strings.Contains(s, testToken) {
					t.Errorf("a secret is printed: %s", s)
				}
			}
		})
	}
}

func checkError(t *testing.T, err *Error, want, places string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot ") {
		t.Fatalf("error is %v, want %q", err, want)
	}
	got := ""
	if err.File != "" {
		got = fmt.Sprintf("%s:%d", filepath.Base(err.File), err.Line)
		if err.Also != nil {
			got += fmt.Sprintf(" %s:%d", filepath.Base(err.Also.File), err.Also.Line)
		}
	}
	if got != places {
		t.Errorf("places are %q, want %q: %v", got, places, err)
	}
	for _, place := range strings.Fields(places) { // the message names both
		if line := place[strings.IndexByte(place, ':'):]; !strings.Contains(err.Error(), line) && !strings.Contains(err.Error(), "cannot find credentials") {
			t.Errorf("the message does not name %s: %v", place, err)
		}
	}
}

// param is a link's parameter: "key" of the last link, "kind.key" of another;
// region, secret and token are those of Client and Secrets.
func param(t *testing.T, p *Profile, key string) string {
	t.Helper()
	if len(p.Chain) == 0 {
		t.Fatal("no chain")
	}
	link := p.Chain[len(p.Chain)-1]
	if kind, rest, ok := strings.Cut(key, "."); ok {
		found := false
		for _, l := range p.Chain {
			if string(l.Kind) == kind {
				link, found = l, true
			}
		}
		if !found {
			t.Fatalf("no link of kind %s", kind)
		}
		key = rest
	}
	switch {
	case key == "region":
		return link.Client.Region
	case key == "secret" || key == "token":
		if link.Secrets == nil {
			return "-"
		}
		secret, token := link.Secrets.Reveal()
		if key == "token" {
			return token
		}
		return secret
	}
	if v, ok := link.Params[key]; ok {
		return v
	}
	return "-"
}

func TestUnknownProfile(t *testing.T) {
	s, dir := world{config: "[profile dev]\n" + pair + "[profile production]\n" + pair + "[bare]\nregion = x\n", vault: map[string]VaultKey{"staging": {}},
		env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret}}.load(t)
	for name, want := range map[string]string{"dve": "dev", "Production": "production", "prodution": "production", "stagin": "staging", "zzzzzz": "", "x\x1by": ""} {
		for _, q := range []Query{byFlag(name), {Profile: name}} { // environment keys do not make a name right
			p, err := s.Resolve(q)
			var e *Error
			if p != nil || !errors.As(err, &e) || !e.Unknown || e.Nearest != want {
				t.Errorf("%q: %v, %v", name, p, err)
			}
			if want != "" && e.Hint() != "did you mean "+want+"?" {
				t.Errorf("%q: hint %q", name, e.Hint())
			}
			if strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("an escape character in %q", err.Error())
			}
		}
	}
	var e *Error
	_, err := s.Resolve(byFlag("bare"))
	if !errors.As(err, &e) || !strings.Contains(e.Hint(), filepath.Join(dir, "config")+":7: a profile of this file is written [profile bare]") {
		t.Errorf("hint of a bare section: %v, %q", err, e.Hint())
	}
	if _, err := (world{}).resolveErr(t, Query{Profile: "default"}); err == nil {
		t.Error("default is not unknown where nothing has it")
	}
}

func (w world) resolveErr(t *testing.T, q Query) (*Profile, error) {
	s, _ := w.load(t)
	return s.Resolve(q)
}

func TestFlagsMakeNoDefaultProfile(t *testing.T) {
	w := world{env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret}}
	if _, err := w.resolveErr(t, byFlag("default")); err == nil {
		t.Error("a profile named by a flag is taken from the environment")
	}
}

func TestEndpoints(t *testing.T) {
	const config = "[profile a]\nendpoint_url = http://all\nservices = s\n" + pair +
		"[services s]\nsts =\n  endpoint_url = http://sts\nsso_oidc =\n  endpoint_url = http://oidc\ns3 =\n  endpoint_url = http://s3\n"
	for _, c := range []struct {
		name string
		env  map[string]string
		want map[string]string
		line string // settingLine of services.sts.endpoint_url
	}{
		{"files", nil, map[string]string{"": "http://all", "sts": "http://sts", "sso_oidc": "http://oidc"}, "http://sts @ config:8"},
		{"AWS_ENDPOINT_URL_STS", map[string]string{"AWS_ENDPOINT_URL_STS": "http://e"},
			map[string]string{"": "http://all", "sts": "http://e", "sso_oidc": "http://oidc"}, "http://e @ environment AWS_ENDPOINT_URL_STS < http://sts @ config:8"},
		{"AWS_ENDPOINT_URL beats the files' services", map[string]string{"AWS_ENDPOINT_URL": "http://e"},
			map[string]string{"": "http://e"}, "http://e @ environment AWS_ENDPOINT_URL < http://sts @ config:8"},
		{"both variables", map[string]string{"AWS_ENDPOINT_URL": "http://e", "AWS_ENDPOINT_URL_STS": "http://f", "AWS_ENDPOINT_URL_SIGNIN": "http://g"},
			map[string]string{"": "http://e", "sts": "http://f", "signin": "http://g"}, "http://f @ environment AWS_ENDPOINT_URL_STS < http://e @ environment AWS_ENDPOINT_URL < http://sts @ config:8"},
		{"ignored", map[string]string{"AWS_ENDPOINT_URL": "http://e", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"}, nil, "http://e @ environment AWS_ENDPOINT_URL < http://sts @ config:8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := world{config: config, env: c.env}.resolve(t, byFlag("a"))
			if p.Err != nil {
				t.Fatal(p.Err)
			}
			if got := p.Chain[1].Client.EndpointURL; fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("endpoints are %v, want %v", got, c.want)
			}
			if got := settingLine(p, "services.sts.endpoint_url"); got != c.line {
				t.Errorf("shown as %s\nwant     %s", got, c.line)
			}
		})
	}
}

func TestClientSettings(t *testing.T) {
	p := world{home: "/h", config: "[profile a]\nca_bundle = ~/ca.pem\nuse_fips_endpoint = true\nuse_dualstack_endpoint = True\nsts_regional_endpoints = legacy\nmax_attempts = 7\nretry_mode = Adaptive\n" + pair,
		env: map[string]string{"AWS_MAX_ATTEMPTS": "2"}}.resolve(t, byFlag("a"))
	if p.Err != nil {
		t.Fatal(p.Err)
	}
	want := Client{Region: "us-east-1", CABundle: filepath.Join("/h", "ca.pem"), UseFIPS: true, UseDualStack: true, STSLegacy: true, MaxAttempts: 2, RetryMode: "adaptive"}
	if got := p.Chain[1].Client; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("client is %+v, want %+v", got, want)
	}
}

// Fifty roles over one pair share its session: same parameters and client
// whatever the roles say.
func TestRolesShareTheSession(t *testing.T) {
	config := user + "region = eu-north-1\n"
	for i := range 50 {
		config += fmt.Sprintf("[profile r%d]\nrole_arn = arn:aws:iam::1234567890%02d:role/r\nsource_profile = user\nmfa_serial = %s\nregion = r-%d\nduration_seconds = %d\nmax_attempts = %d\n", i, i, testMFA, i, 900+i, i)
	}
	s, _ := world{config: config}.load(t)
	want := ""
	for i := range 50 {
		p := mustResolve(t, s, byFlag(fmt.Sprintf("r%d", i)))
		got := fmt.Sprint(p.Chain[1].Kind, p.Chain[1].Params, p.Chain[1].Client, p.Chain[0].Params, p.Chain[0].Client)
		if want == "" {
			want = got
		}
		if got != want {
			t.Fatalf("r%d: %s\nr0: %s", i, got, want)
		}
	}
}

// While the vault is locked nobody knows key ids: two profiles' keys must not
// look like one.
func TestLockedVaultKeepsProfilesApart(t *testing.T) {
	s, _ := world{vault: map[string]VaultKey{"a": {}, "b": {}}}.load(t)
	a, b := mustResolve(t, s, byFlag("a")), mustResolve(t, s, byFlag("b"))
	if fmt.Sprint(a.Chain[0].Params) == fmt.Sprint(b.Chain[0].Params) {
		t.Error("the static keys of two profiles have the same parameters")
	}
}

func TestWithVault(t *testing.T) {
	s, _ := world{config: "[profile a]\nregion = x\n"}.load(t)
	vault := map[string]VaultKey{"a": {AccessKeyID: "AKIA1"}, "v": {AccessKeyID: "AKIA2"}}
	n := s.WithVault(vault)
	delete(vault, "v")
	if s.Has("v") || !n.Has("v") || strings.Join(n.Names(), ",") != "a,v" || strings.Join(s.Names(), ",") != "a" {
		t.Errorf("names are %v and %v", s.Names(), n.Names())
	}
	if p := mustResolve(t, n, byFlag("a")); p.Err != nil || chainOf(p) != "static-keys(a) -> session-token(a)" || p.Chain[0].Params["aws_access_key_id"] != "AKIA1" {
		t.Errorf("%v %s", p.Err, chainOf(p))
	}
	if p := mustResolve(t, s, byFlag("a")); p.Err == nil {
		t.Error("the old set changed")
	}
}

func TestKeyfobItselfIsSkipped(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "kf-real")
	if err := os.WriteFile(real, []byte("x"), 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "helper")
	if err := os.Symlink(real, link); err != nil {
		t.Skip(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("x"), 0o700); err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{
		"keyfob credential-process --profile a":        true,
		"/usr/local/bin/keyfob credential-process":     true,
		"'/opt/my tools/keyfob' credential-process":    true,
		`"/opt/my tools/keyfob" credential-process`:    true,
		`/opt/my\ tools/keyfob`:                        true,
		`key"fob" x`:                                   true,
		"AWS_REGION=x KEYFOB_SOCKET='/a b' keyfob x":   true,
		"env keyfob x":                                 true,
		"/usr/bin/env -i -u HOME A=b 'C D'=e keyfob x": false, // 'C D'=e is a program to sh, an assignment to env only where it is a name
		"/usr/bin/env -i -u HOME A=b keyfob x":         true,
		"env -S 'keyfob x'":                            true,
		"exec keyfob x":                                true,
		"keyfob.exe x":                                 true,
		"~/bin/keyfob x":                               true,
		"$HOME/bin/keyfob x":                           true,
		link + " x":                                    true,
		"'" + link + "'":                               true,
		"helper x":                                     true, // by PATH
		"other x":                                      false,
		other + " x":                                   false,
		"keyfobd x":                                    false,
		"/opt/keyfob/wrapper x":                        false,
		"echo keyfob":                                  false,
		"sh -c 'keyfob x'":                             false, // a wrapper: ended by its call depth
		"":                                             false,
	}
	if runtime.GOOS == "windows" { // cmd.exe's words
		lines = map[string]bool{
			"keyfob credential-process --profile a":     true,
			"KEYFOB.EXE x":                              true,
			`"C:\Program Files\keyfob\keyfob.exe" x`:    true,
			`C:\keyfob\keyfob x`:                        true,
			`"C:\Program Files\keyfob\keyfobd.exe" run`: false,
			`C:\Program Files\keyfob\keyfob.exe x`:      false, // its program is C:\Program
			"'keyfob' x":                                false, // no quotes there
			"other x":                                   false,
			`cmd /c keyfob x`:                           false, // a wrapper: ended by its call depth
			"":                                          false,
		}
	}
	for line, self := range lines {
		w := world{config: "[profile a]\ncredential_process = " + line + "\n", env: map[string]string{"PATH": dir}, self: []string{real}}
		p := w.resolve(t, byFlag("a"))
		if got := len(p.Skipped) == 1 && p.Skipped[0].Why == "keyfob itself" && at(p.Skipped[0].Origin) == "config:2"; got != self {
			t.Errorf("%q: skipped %v, want %v", line, p.Skipped, self)
		}
		if s, _ := p.Get("credential_process"); (s.Skipped == "keyfob itself") != self {
			t.Errorf("%q: setting is %+v", line, s)
		}
		if self && (p.Err == nil || !strings.Contains(p.Err.Error(), "credential_process is keyfob itself")) {
			t.Errorf("%q: error is %v", line, p.Err)
		}
		if wantLink := !self && line != ""; (chainOf(p) == "process(a)") != wantLink {
			t.Errorf("%q: chain is %s", line, chainOf(p))
		}
	}
	// What it is for: the line in the AWS config, the role in keyfob's file.
	p := world{config: user + "[profile a]\ncredential_process = keyfob credential-process --profile a\n", keyfob: "[profile a]\nrole_arn = " + testRole + "\nsource_profile = user\n"}.resolve(t, byFlag("a"))
	if p.Err != nil || chainOf(p) != "static-keys(user) -> assume-role(a)" || len(p.Skipped) != 1 {
		t.Errorf("%v %s %v", p.Err, chainOf(p), p.Skipped)
	}
	// And over keys in the vault.
	p = world{config: "[profile a]\ncredential_process = keyfob credential-process --profile a\n", vault: map[string]VaultKey{"a": {}}}.resolve(t, byFlag("a"))
	if p.Err != nil || chainOf(p) != "static-keys(a) -> session-token(a)" || len(p.Skipped) != 1 {
		t.Errorf("%v %s %v", p.Err, chainOf(p), p.Skipped)
	}
}

func TestProgramOfWindows(t *testing.T) {
	for line, want := range map[string]string{
		`"C:\Program Files\keyfob\keyfob.exe" credential-process`: `C:\Program Files\keyfob\keyfob.exe`,
		`C:\keyfob\keyfob.exe credential-process`:                 `C:\keyfob\keyfob.exe`,
		`keyfob`: `keyfob`, ``: ``,
	} {
		if got := programOf(line, true); got != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func TestList(t *testing.T) {
	s, _ := world{
		config:      user + "[profile app]\nrole_arn = " + testRole + "\nsource_profile = user\n[profile sso]\nsso_start_url = u\nsso_region = r\nsso_account_id = 210987654321\nsso_role_name = x\n[profile broken]\nrole_arn = x\n",
		credentials: "[user]\nregion = x\n", vault: map[string]VaultKey{"v": {}},
		env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": testSecret},
	}.load(t)
	var got []string
	for _, l := range s.List() {
		var o []string
		for _, x := range l.Origins {
			o = append(o, at(x))
		}
		got = append(got, fmt.Sprintf("%s %s [%s] %s %v", l.Name, l.Source, strings.Join(o, ","), l.Account, l.Err != nil))
	}
	want := "app assume-role [config:4] 123456789012 false\nbroken  [config:12] 	 true\nsso sso [config:7] 210987654321 false\nuser static-keys [credentials:1,config:1]  false\nv static-keys [keystore v]  false"
	if strings.Join(got, "\n") != strings.ReplaceAll(want, "\t", "") {
		t.Errorf("list is\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

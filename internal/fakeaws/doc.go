// Package fakeaws is a fake AWS for tests and the demo: it speaks STS's and
// the needed part of IAM's query protocol, S3's ListBuckets, Identity Center
// (SSO OIDC and portal), the sign-in service of `aws login`, Roles Anywhere,
// console federation, Access Analyzer's ValidatePolicy, instance metadata and
// container credentials, and has an OpenID and a SAML provider to sign in at,
// closely enough that the AWS command line, boto3 and the Go SDK can't tell. It
// verifies SigV4 signatures (header and presigned form), keeps users, roles,
// access keys, MFA devices and sessions in memory, judges trust and identity
// permissions in a simple form, and answers errors in AWS's own words and
// shapes. It is never packaged.
//
// In a test:
//
//	aws := fakeaws.New()
//	id, secret := aws.AddUser(fakeaws.UserSpec{Name: "alice"})
//	role := aws.AddRole(fakeaws.RoleSpec{Name: "deploy", Account: "222233334444"})
//	url, stop, err := aws.Start(ctx) // or package fakeawstest
//
// and AWS_ENDPOINT_URL=url for whatever is tested. Any Host is accepted.
// Faults, latency, the clock, the lifetime of credentials and outages can be
// set at any time, by method or over the admin port (AdminHandler); what was
// asked can be read from Calls and Counters.
//
// As a program (cmd/fakeaws) it prints one JSON line with its URLs and keys
// when it is ready. A state file holds a World:
//
//	{"users":[{"name":"alice","mfa":[{"seed":"JBSWY3DPEHPK3PXP"}],"may_assume":["arn:aws:iam::*:role/deploy"]}],
//	 "roles":[{"arn":"arn:aws:iam::444455556666:role/deploy","trust":[{"principals":["111122223333"],"mfa":true}]}],
//	 "settings":{"lifetime_seconds":60}}
//
// and the admin port turns things while it runs:
//
//	curl -X PUT $ADMIN/settings -d '{"outage":"refused"}'
//	curl -X PUT $ADMIN/faults -d '[{"kind":"throttle","action":"AssumeRole","count":3}]'
//
// Sign-in services all live on the one URL (so AWS_ENDPOINT_URL_SSO,
// AWS_ENDPOINT_URL_SSO_OIDC, AWS_ENDPOINT_URL_SIGNIN and
// AWS_ENDPOINT_URL_ROLESANYWHERE are that URL):
//
//	aws.AddSSO(fakeaws.SSOSpec{Accounts: …})   /client/register /device_authorization /token /authorize /device
//	                                           /federation/credentials /assignment/… /logout
//	aws.SetLogin(arn)                          /v1/authorize /v1/token /v1/sessions/confirmation
//	aws.AddOIDC(fakeaws.OIDCSpec{})            /oidc/NAME is the issuer
//	aws.AddSAML(fakeaws.SAMLSpec{Roles: …})    /saml/idp/NAME is the page, /saml AWS's sign-in address
//	aws.AddTrustAnchor, AddAnywhereProfile     /sessions
//	                                           /federation?Action=getSigninToken|login, /switchrole
//	aws.SetInstance, AddContainer              /latest/…, /container/NAME
//
// The pages approve at once, so that a plain GET that follows redirects signs
// in; SetSignIn makes them want a click or a password, refuse, answer with
// another state, or wait. Calls and faults go by action: RegisterClient,
// StartDeviceAuthorization, CreateToken, Authorize, DevicePage,
// GetRoleCredentials, ListAccounts, ListAccountRoles, Logout;
// SigninAuthorize, SigninConfirmation, CreateOAuth2Token; OIDCDiscovery,
// OIDCKeys, OIDCAuthorize, OIDCToken, OIDCRevoke; SAMLLogin, SAMLMetadata,
// SAMLSignIn; CreateSession; GetSigninToken, ConsoleLogin, SwitchRole;
// ValidatePolicy; IMDSToken, IMDSRole, IMDSCredentials, IMDSInfo, IMDSRegion,
// IMDSZone, IMDSIdentity; ContainerCredentials. The Throttle fault says what
// the service says (SlowDownException, TooManyRequestsException, …). Counters
// has these events as well: reused:code, reused:refresh_token, reused:jti,
// again:refresh_token (a login session's, which is allowed), logins:KIND.
//
// What is simpler than AWS: conditions of session policies are not evaluated
// (such a statement never allows), PackedPolicySize is an estimate, of the
// managed session policies (PolicyArns) only those that read are known (any
// other allows everything), an XML signature verifies only over the form in
// which the fake writes its assertions, and changes take effect at once
// unless SetKeyDelay says otherwise.
//
// Services are rooms: a room is a value of type service that says how its
// requests are recognised, how its errors look, and which actions it has.
// A new service is a new file with one such value, listed in rooms.
package fakeaws

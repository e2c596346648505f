// Package oidc is the source for OpenID Connect sign-ins and for web
// identity tokens: both end in AssumeRoleWithWebIdentity.
//
// A web-identity link reads a token file at each refresh. An oidc link has a
// person sign in at a provider (OpenID Connect Core 1.0, authorization code
// with PKCE on a loopback redirect as RFC 8252 has it, or a device code, RFC
// 8628) and keeps what came of it in one record of the vault:
//
//	oidc/<hash>    refresh token and ID token of one issuer, client and scopes
//
// All links of that issuer, client and scopes share the sign-in. A refresh
// token is marked in the record before it is sent, and what the answer holds
// is written before it is used. So a process that is killed in between finds
// the mark and asks a person rather than send a one-use token twice.
package oidc

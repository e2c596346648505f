// Package oidc is the source for OpenID Connect sign-ins and for web
// identity tokens (AssumeRoleWithWebIdentity).
package oidc

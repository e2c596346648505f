// Package sts makes the credentials of long-lived keys and of the roles
// above them: the links static-keys, environment-keys, session-token
// (GetSessionToken) and assume-role (AssumeRole).
//
// A fetch is one HTTP request that depends on nothing but the link's
// parameters and client settings, the secrets and file contents they name,
// and the credentials below; whatever decides the answer is in the LinkKey.
//
// Errors are *cred.UpstreamError for every call that failed or that was
// answered with something unusable; WrongCode tells a wrong MFA code apart.
// A profile or a file that can't be used as it is makes an error that Is
// cred.ErrConfig.
package sts

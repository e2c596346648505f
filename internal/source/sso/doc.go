// Package sso gets credentials through IAM Identity Center: a person signs in
// once at a start URL, and every account and role that is assigned to him is
// then had for the asking, for as long as AWS refreshes the sign-in.
//
// One sign-in is shared by all links of an sso-session (or, in profiles of
// the older form, of a start URL): package sso keeps one session for them,
// with one refresh or one question to a person at a time, however many ask.
// Tokens and client registrations are records of the vault:
//
//	sso/token/<hash of the sign-in>    access and refresh token, and what was refused
//	sso/client/<hash of registration>  client id and secret, by start URL, region, scopes and grant types
//
// A refresh token is for one use. It is noted as spent in the record before
// it is sent, and the answer is in the record before it is used: after a
// kill in between the token is not sent again, and a person is asked.
//
// The AWS command line's token cache is read, and by setting shared.
package sso

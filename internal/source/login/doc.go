// Package login is the source of the credentials of a console sign-in, as
// `aws login` makes one: temporary credentials of 15 minutes, and a refresh
// token that is bound to a key (DPoP, RFC 9449).
//
// A session is found in two places. The vault has the ones that keyfob signed
// in to; the AWS CLI's cache has the CLI's, which is refreshed in place, with
// the CLI's own key, so that the CLI and keyfob live on one session. The
// vault goes first, then the cache, then a person is asked: in a browser of
// this machine, or in another one whose page shows a code to paste.
package login

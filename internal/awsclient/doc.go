// Package awsclient builds AWS clients from resolved settings
// (profiles.Client) and says in plain words what went wrong with a call.
//
// What a profile resolves to is what is called: the SDK's own readers of the
// environment and of the shared files are never asked, so that the endpoint
// that `keyfob explain` shows is the one that is dialled. Only proxies
// (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) come from the process environment.
//
// config.LoadDefaultConfig is not used on purpose: it always reads the
// process environment, fails when AWS_PROFILE names a profile that its (here
// empty) files lack, and fails on any malformed AWS_* variable, none of
// which may matter to a profile that keyfob has resolved. Config builds the
// same aws.Config from config.LoadOptions, the type that LoadDefaultConfig
// itself puts first, as the only configuration source.
package awsclient

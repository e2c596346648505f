// Package rolesanywhere is the source for IAM Roles Anywhere: a role's
// session for whoever holds the private key of an X.509 certificate that a
// trust anchor trusts.
//
// CreateSession is in no SDK model. Its request is signed here, by the key
// itself: in software, by a TPM 2.0, or, in a build with the tag pkcs11, by a
// PKCS #11 token
// (https://docs.aws.amazon.com/rolesanywhere/latest/userguide/authentication-sign-process.html).
//
// Certificate and key are read anew for each fetch, so that a renewed
// certificate counts at once, and what AWS would refuse about them is said
// before any call.
package rolesanywhere

// Package loopback receives the one redirect with which a browser sign-in
// ends (RFC 8252 §7.3): a listener on 127.0.0.1 that is bound before the
// browser opens, takes one answer, and closes. Identity Center, console and
// OpenID sign-ins share it.
//
// Every page and program of the machine can reach the port. What they send
// is told from the answer by the state, a secret between us and whom we sent
// the browser to; a request without it is refused and changes nothing.
//
// The other way round, Once sends one browser on to an address that must not
// stand in an argument list.
package loopback

// Package keystoretest is for tests: the conformance suite that every
// cred.Store passes, and what a test of a vault needs around it (the helper
// program, a private session bus with a real Secret Service).
package keystoretest

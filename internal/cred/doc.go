// Package cred holds the words that every part of keyfob shares: what a
// secret, a set of credentials, a request and a source are, and which errors
// mean what. It decides nothing and calls nobody.
package cred

// Package metadata is the source for the credentials that a real instance
// or container gives its programs.
package metadata

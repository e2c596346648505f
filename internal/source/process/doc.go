// Package process is the source for the credential_process lines of other
// tools.
package process

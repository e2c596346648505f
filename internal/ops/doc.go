// Package ops holds the operations on identities that call AWS beside the
// refresh of credentials: rotation, console, whoami, policies, checks.
package ops

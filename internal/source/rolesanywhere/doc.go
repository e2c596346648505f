// Package rolesanywhere is the source for IAM Roles Anywhere.
package rolesanywhere

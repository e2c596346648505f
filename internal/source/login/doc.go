// Package login is the source for the sessions of aws login.
package login

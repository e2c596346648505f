// Package sso is the source for IAM Identity Center (AWS SSO).
package sso

// Package saml is the source for AssumeRoleWithSAML.
package saml

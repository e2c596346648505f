// Package saml is the source for AssumeRoleWithSAML: a person signs in at an
// identity provider, whose browser page would post an assertion to AWS's
// sign-in page; keyfob takes it there and trades it for a role's session
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithSAML.html).
//
// The assertion comes from the person's client, which drives a browser to
// saml_url (cred.AskSAML), from a file that the person gave (cred.Signin), or
// from the command saml_process. It is good for a few minutes and for
// whoever has it: it is never stored, and in no log or error.
//
// AWS verifies its signature. What is read of it here decides the role and
// the session's length, and finds early, in better words than AWS's, what
// AWS would refuse.
package saml

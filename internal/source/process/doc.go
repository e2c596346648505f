// Package process is the source for the credential_process lines of other
// tools (https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html).
//
// The answer is read to the letter: one JSON object, Version the number 1,
// names as documented. Where it is anything else the error says what it is
// instead, and nothing that it holds.
//
// Keys without a session token are long-lived ones. They are given as they
// are to a role above, and become a session (GetSessionToken) where the
// link's parameter hand_out says that no link is above it (CONTRACT.md §4).
// A session token without Expiration has an end that nobody tells: it is
// taken for an hour, and then the program is asked again.
package process

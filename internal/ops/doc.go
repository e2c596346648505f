// Package ops holds the operations on identities that call AWS beside the
// refresh of credentials: a sign-in to the console, who a profile is and what
// is wrong with its keys, new keys in the place of old ones, the IAM policies
// that a profile needs, a look at the way to AWS, and the name of the person
// in AWS's logs.
//
// An operation is one answer to one question of a person: it makes a few HTTP
// requests, each with a deadline, keeps nothing (but for the journal of a
// rotation, so that it can be gone on with after a kill), and has joined
// whatever it started when it returns. Who may ask is judged before, by whoever
// got the credentials from the broker.
package ops

// Package ops holds the operations on identities that call AWS beside the
// refresh of credentials: a sign-in to the console, who a profile is and what
// is wrong with its keys, and the name of the person in AWS's logs.
//
// An operation is one answer to one question of a person: it makes a few HTTP
// requests, each with a deadline, keeps nothing, and has joined whatever it
// started when it returns. Who may ask is judged before, by whoever got the
// credentials from the broker.
package ops

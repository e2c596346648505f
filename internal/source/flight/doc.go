// Package flight lets any number of callers share one attempt to get at a
// person's sign-in: a refresh of its tokens, or a question to the person.
// Identity Center, console and OpenID sign-ins share it.
//
// There is one flight at a time for each Group, on a goroutine of its own.
// Whoever began it may leave, and the others go on; the last one that leaves
// ends and joins it. Each caller puts the flight's question to its own Asker,
// in the name of its own profile, because only so does the broker know who
// waits for a person, and only so is a caller without anybody there told at
// once. What comes of it is everybody's.
package flight

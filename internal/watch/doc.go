// Package watch is `keyfob status --watch`: a full-screen view of what the
// daemon does, drawn anew as it changes. Sessions stand there with their
// remaining life as bars, the next refresh and their callers; questions that
// wait for a person can be answered from it.
//
// Draw is pure, so that its screens are tested as text; Run owns the
// terminal.
package watch

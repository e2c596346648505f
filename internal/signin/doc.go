// Package signin is the program keyfob-signin, which stands in the person's
// own session: it shows a desktop notification, and asks one question in a
// dialog or at the terminal. What is shown comes in as one JSON object on
// standard input and the answer goes out as one on standard output, so that
// no answer is ever in an argument list, an environment or a file.
package signin

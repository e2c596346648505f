// Package command runs the programs that a profile names: credential_process,
// mfa_process and saml_process of other tools, and ykman.
//
// A program gets an environment made from an allow-list (CONTRACT.md §2: no
// AWS variable that chooses credentials, nothing of keyfob's that opens the
// vault), the person's PATH and home, an empty standard input, and no
// terminal. It runs in a process group and a session of its own (a job on
// Windows), which is killed as a whole when the time is over, when it writes
// too much, when nobody waits any more, and when its first process has ended.
// What it wrote to standard error goes to the log at debug level with
// whatever may be a secret taken out, and never into an error.
//
// On Linux a program that fails takes with it what it has started in other
// sessions as well (a daemon of its own). When it succeeds, processes that
// have left its session stay: agents, such as gpg's, do so on purpose. On
// macOS those are not found, on Windows a job has no such way out.
package command

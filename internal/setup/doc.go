// Package setup is the pure part of `keyfob configure` and `keyfob import`:
// it makes a Change of a person's answers, shows it as a diff, writes it only
// where the files are still what was read, and notes in a Journal how to undo
// it. It reads key pairs out of the AWS credentials file, the console's CSV
// files and the environment. It asks nobody and calls no network.
package setup

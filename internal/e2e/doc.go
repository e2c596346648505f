// Package e2e holds the end-to-end tests: the programs as they are built, a
// fake AWS, and real AWS clients. It has no code of its own.
package e2e

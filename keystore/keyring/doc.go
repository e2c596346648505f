// Package keyring is the code of the program keyfob-keyring: it does one
// operation for keyfobd, on the OS keyring or with a passphrase, and ends.
//
// It is the only importer of github.com/99designs/keyring. Importing that
// library dials D-Bus before main runs, its calls take no context, and each
// call leaves a session open: so each operation has a process of its own,
// whose time limit keyfobd enforces from outside.
//
// The request and the answer cross on an inherited socket pair (standard
// input and output on Windows), never in arguments or the environment. The
// program touches items of keyfob alone: the service's name is fixed here,
// and a key is "vault-" and 32 hexadecimal digits.
package keyring

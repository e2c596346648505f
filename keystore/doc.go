// Package keystore keeps keyfob's long-lived secrets: a vault, which is one
// directory of sealed records, and the client of the helper program that
// fetches the vault's master key from the OS keyring or derives it from a
// passphrase.
//
// # The vault on disk
//
//	vault.json          the header: format version, vault id, backend, key
//	                    check value, wrapped master keys
//	vault.lock          locked by writers (shared) and by whoever changes the
//	                    header or sets a corrupt record aside (exclusive)
//	NAME.rec            one record; NAME is the record's name, encoded
//	NAME.rec.corrupt-T  a record that could not be opened, set aside at the
//	                    Unix time T
//	.tmp-*              a write under way, or what a killed process left
//
// Every record is sealed with XChaCha20-Poly1305 under a key derived (HKDF
// with SHA-256) from the 32-byte master key. The associated data is the
// format version, the vault's id and the record's name, so that a record
// copied over another one, or from another vault, is refused. Record names
// are not secret: they are the file names, and List works while locked.
//
// Files are written to a temporary file in the same directory, synced and
// renamed, and the directory is synced: a killed process leaves the old
// record or the new one.
//
// What the seal does not tell: that a file was put back to an older state of
// the same record, or removed. Who can write to the directory can do that.
//
// # Who holds the master key
//
// One item of the OS keyring, read and written by the helper
// keyfob-keyring, or a passphrase whose Argon2id key wraps it. A recovery
// key may wrap it a second time. This package never imports a keyring
// library: importing one dials D-Bus, and a bus that hangs must cost a
// caller the time limit, not the daemon.
package keystore

package keystore

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// A record's file:
//
//	4 bytes   "kfob"
//	1 byte    format version, 1
//	2 bytes   length of the name, big endian
//	n bytes   the record's name
//	24 bytes  nonce, random
//	rest      the value, sealed, with its tag of 16 bytes
//
// The associated data is everything before the nonce and the vault's id.
const (
	recordMagic   = "kfob"
	recordVersion = 1
	recordHead    = len(recordMagic) + 1 + 2

	// maxValue bounds a record's value, in bytes.
	maxValue = 1 << 20
	// maxRecordFile is the longest file that can be a record of ours.
	maxRecordFile = recordHead + maxName + chacha20poly1305.NonceSizeX + maxValue + chacha20poly1305.Overhead
)

// badRecord says what is wrong with a record's file.
type badRecord string

func (e badRecord) Error() string { return string(e) }

// appendHead appends a record's head: what stands before the nonce.
func appendHead(dst []byte, name string) []byte {
	dst = append(dst, recordMagic...)
	dst = append(dst, recordVersion)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(name)))
	return append(dst, name...)
}

// splitRecord takes a record's file apart: its name, its head and what is
// sealed (nonce first). Errors: badRecord, ErrNewerVersion.
func splitRecord(b []byte) (name string, head, sealed []byte, err error) {
	if len(b) < recordHead {
		return "", nil, nil, badRecord("it is too short")
	}
	if string(b[:len(recordMagic)]) != recordMagic {
		return "", nil, nil, badRecord("it is no record")
	}
	switch v := b[len(recordMagic)]; {
	case v > recordVersion:
		return "", nil, nil, ErrNewerVersion
	case v < recordVersion:
		return "", nil, nil, badRecord("it has no format version")
	}
	n := int(binary.BigEndian.Uint16(b[recordHead-2:]))
	if n == 0 || n > maxName || len(b) < recordHead+n+chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead {
		return "", nil, nil, badRecord("it is cut off")
	}
	return string(b[recordHead : recordHead+n]), b[:recordHead+n], b[recordHead+n:], nil
}

// additional is the associated data of the record with that head.
func additional(head []byte, id vaultID) []byte {
	ad := make([]byte, 0, len(head)+len(id))
	ad = append(ad, head...)
	return append(ad, id[:]...)
}

// sealRecord returns the file of a record.
func sealRecord(aead cipher.AEAD, id vaultID, name string, value []byte) []byte {
	b := make([]byte, 0, recordHead+len(name)+chacha20poly1305.NonceSizeX+len(value)+chacha20poly1305.Overhead)
	b = appendHead(b, name)
	ad := additional(b, id)
	at := len(b)
	b = b[:at+chacha20poly1305.NonceSizeX]
	nonce := b[at:]
	_, _ = rand.Read(nonce) // never fails, see crypto/rand
	return aead.Seal(b, nonce, value, ad)
}

// openRecord returns the value of record name from its file. The value
// shares memory with b. Errors: badRecord, ErrNewerVersion.
func openRecord(aead cipher.AEAD, id vaultID, name string, b []byte) ([]byte, error) {
	found, head, sealed, err := splitRecord(b)
	if err != nil {
		return nil, err
	}
	if found != name {
		return nil, badRecord(fmt.Sprintf("it is the record %s", printable(found)))
	}
	nonce, box := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	value, err := aead.Open(box[:0], nonce, box, additional(head, id))
	if err != nil {
		return nil, badRecord("its seal is broken")
	}
	return value, nil
}

// isBad reports whether err means that a record is damaged, as opposed to
// unreadable now or written by a newer version.
func isBad(err error) (why string, bad bool) {
	var b badRecord
	if errors.As(err, &b) {
		return string(b), true
	}
	return "", false
}

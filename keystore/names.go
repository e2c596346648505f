package keystore

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// File names. A record's name becomes a file name that every file system
// takes and keeps apart from all others: lower-case ASCII letters (macOS and
// Windows ignore case, and macOS rewrites other letters), no name that
// Windows reserves for devices, and short enough for eCryptfs, which takes
// 143 bytes, with what setting aside appends.
//
//	a-z 0-9 - _    stand for themselves
//	/              +
//	anything else  %xx, two lower-case hex digits for each byte
//
// Each name has exactly one file name. A name whose file name would be too
// long is stored under ~ and its SHA-256 in hex; then List reads the name
// from the file itself.
const (
	recordSuffix = ".rec"
	corruptMark  = ".corrupt-"
	tempPrefix   = ".tmp-"
	hashMark     = "~"

	maxStem = 100  // bytes of a file name before its suffix
	maxName = 1024 // bytes of a record's name
)

const hexDigits = "0123456789abcdef"

func plainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// fileName returns the name of the file that holds record name.
func fileName(name string) string {
	b := make([]byte, 0, len(name)+len(recordSuffix)+8)
	for i := 0; i < len(name) && len(b) <= maxStem; i++ {
		switch c := name[i]; {
		case i == 0 && reservedOnWindows(name):
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		case plainByte(c):
			b = append(b, c)
		case c == '/':
			b = append(b, '+')
		default:
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	if len(b) > maxStem {
		sum := sha256.Sum256([]byte(name))
		return hashMark + hex.EncodeToString(sum[:]) + recordSuffix
	}
	return string(append(b, recordSuffix...))
}

// recordName returns the name of the record in a file of that name. hashed
// means that the name stands in the file alone. ok is false for a file that
// is no record's.
func recordName(file string) (name string, hashed, ok bool) {
	stem, isRecord := strings.CutSuffix(file, recordSuffix)
	if !isRecord || stem == "" {
		return "", false, false
	}
	if sum, isHash := strings.CutPrefix(stem, hashMark); isHash {
		raw, err := hex.DecodeString(sum)
		return "", true, err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == sum
	}
	b := make([]byte, 0, len(stem))
	for i := 0; i < len(stem); i++ {
		switch c := stem[i]; {
		case plainByte(c):
			b = append(b, c)
		case c == '+':
			b = append(b, '/')
		case c == '%' && i+2 < len(stem):
			hi, lo := strings.IndexByte(hexDigits, stem[i+1]), strings.IndexByte(hexDigits, stem[i+2])
			if hi < 0 || lo < 0 {
				return "", false, false
			}
			b = append(b, byte(hi<<4|lo))
			i += 2
		default:
			return "", false, false
		}
	}
	name = string(b)
	// Only the one spelling that fileName gives is a record's file.
	if fileName(name) != file {
		return "", false, false
	}
	return name, false, true
}

// reservedOnWindows reports whether Windows takes name, with whatever
// extension, for a device.
func reservedOnWindows(name string) bool {
	switch name {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(name) == 4 && (name[:3] == "com" || name[:3] == "lpt") && name[3] >= '0' && name[3] <= '9'
}

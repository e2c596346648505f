package sts

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// accountOfKey reads the account that access key ids made since 2019 carry:
// after the prefix of four letters, base32, bits 1 to 40. Older ids, whose
// first bit is 0, tell nothing; neither do ids that AWS has not made.
func accountOfKey(id string) (string, bool) {
	if len(id) != 20 || !strings.HasPrefix(id, "AKIA") && !strings.HasPrefix(id, "ASIA") {
		return "", false
	}
	b, err := base32.StdEncoding.DecodeString(id[4:])
	if err != nil || b[0]&0x80 == 0 {
		return "", false
	}
	n := binary.BigEndian.Uint64(append([]byte{0, 0}, b[:6]...)) & 0x7fffffffff80 >> 7
	if n > 999_999_999_999 {
		return "", false
	}
	return fmt.Sprintf("%012d", n), true
}

// accountOfARN is the fifth field of arn:PARTITION:SERVICE:REGION:ACCOUNT:…,
// "" where there is none.
func accountOfARN(arn string) string {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[0] != "arn" || len(p[4]) != 12 || strings.Trim(p[4], "0123456789") != "" {
		return ""
	}
	return p[4]
}

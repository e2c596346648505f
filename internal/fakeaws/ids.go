package fakeaws

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// keyID makes a 20 character access key id. As in AWS the first characters
// after the prefix (AKIA, ASIA) encode the account, so that tools that
// derive an account from an id read the right one.
func keyID(prefix, account string) string {
	b := random(10)
	if n, err := strconv.ParseUint(account, 10, 40); err == nil {
		var six [8]byte
		binary.BigEndian.PutUint64(six[:], 1<<47|n<<7|uint64(b[5]&0x7f))
		copy(b, six[2:])
	}
	return prefix + base32.StdEncoding.EncodeToString(b)
}

// uniqueID makes the unique id of a user (AIDA) or role (AROA).
func uniqueID(prefix string) string {
	return prefix + base32.StdEncoding.EncodeToString(random(11))[:17]
}

// secretKey makes a 40 character secret access key.
func secretKey() string { return base64.StdEncoding.EncodeToString(random(30)) }

// sessionToken makes a session token of about the length of AWS's.
func sessionToken() string {
	return "IQoJb3JpZ2luX2Vj" + base64.StdEncoding.EncodeToString(random(240))
}

func requestID() string {
	b := random(16)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	x := hex.EncodeToString(b)
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

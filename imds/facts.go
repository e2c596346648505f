package imds

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"runtime"
	"strings"
	"time"
)

// Facts is what the metadata tree tells about "the instance": settings and
// the resolved profile. A value that is empty and has no sensible default is
// left out of the listings and answers 404.
type Facts struct {
	RoleName  string // by RoleName; "" when there is no role to serve
	AccountID string // twelve digits; "" is taken from the credentials
	Region    string
	Partition string // "" is derived from Region
	Zone      string // "" is Region followed by "a"
	ZoneID    string // "use1-az1"; no default, because it differs by account

	InstanceID   string // "" is made of Hostname, in EC2's form
	ImageID      string // likewise
	InstanceType string // "" is t3.micro
	Architecture string // "" is the machine's, in EC2's words
	Hostname     string
	LocalIPv4    string
	PendingTime  time.Time // when "the instance" was launched; zero is the server's start
}

// RoleName is the name that the metadata endpoint lists for a profile: the
// name of the last role of its chain, else the profile's own name. Every
// byte outside A-Za-z0-9+=,.@_- becomes "-", because clients put the name
// into a path as it stands (CONTRACT.md §5). roleARN is "" where no link of
// the chain ends in a role.
func RoleName(roleARN, profile string) string {
	name := profile
	if i := strings.LastIndexByte(roleARN, '/'); i >= 0 && i < len(roleARN)-1 {
		name = roleARN[i+1:]
	}
	b := []byte(name)
	for i, c := range b {
		if !roleByte(c) {
			b[i] = '-'
		}
	}
	// A path segment of dots alone can't be asked for: clients resolve it.
	if s := string(b); s == "." || s == ".." {
		return strings.Repeat("-", len(s))
	}
	return string(b)
}

func roleByte(c byte) bool {
	switch {
	case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("+=,.@_-", c) >= 0
}

func (f *Facts) zone() string {
	if f.Zone == "" && f.Region != "" {
		return f.Region + "a"
	}
	return f.Zone
}

func (f *Facts) partition() string {
	switch {
	case f.Partition != "":
		return f.Partition
	case strings.HasPrefix(f.Region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(f.Region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

func (f *Facts) domain() string {
	if f.partition() == "aws-cn" {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

func (f *Facts) instanceID() string {
	if f.InstanceID != "" {
		return f.InstanceID
	}
	return "i-" + madeUp("instance", f.Hostname)
}

func (f *Facts) imageID() string {
	if f.ImageID != "" {
		return f.ImageID
	}
	return "ami-" + madeUp("image", f.Hostname)
}

func (f *Facts) instanceType() string {
	if f.InstanceType != "" {
		return f.InstanceType
	}
	return "t3.micro"
}

func (f *Facts) architecture() string {
	if f.Architecture != "" {
		return f.Architecture
	}
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "386":
		return "i386"
	}
	return runtime.GOARCH
}

// instanceProfileID looks like the id of an instance profile and is always
// the same for the same role.
func (f *Facts) instanceProfileID(account string) string {
	sum := sha256.Sum256([]byte("keyfob instance profile\x00" + account + "\x00" + f.RoleName))
	return "AIPA" + base32.StdEncoding.EncodeToString(sum[:])[:17]
}

// madeUp returns the 17 hex digits of an EC2 id, always the same for the
// same machine.
func madeUp(kind, hostname string) string {
	sum := sha256.Sum256([]byte("keyfob " + kind + "\x00" + hostname))
	return hex.EncodeToString(sum[:])[:17]
}

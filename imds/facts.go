package imds

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"net/netip"
	"runtime"
	"strings"
	"time"
)

// Facts is what the metadata tree tells about "the instance": settings and
// the resolved profile. What is empty is filled from the machine where that
// can be; a value that is still empty and has no sensible default is left out
// of the listings and answers 404.
type Facts struct {
	RoleName  string // by RoleName; "" when there is no role to serve
	AccountID string // twelve digits; "" is taken from the credentials
	Region    string
	Partition string // "" is derived from Region
	Zone      string // "" is Region followed by "a"
	ZoneID    string // "use1-az1"; no default, because it differs by account

	InstanceID     string // "" is made up of the machine's id, in EC2's form; likewise the next four
	ImageID        string
	VPCID          string
	SubnetID       string
	ReservationID  string
	InstanceType   string // "" is t3.micro
	Architecture   string // "" is the machine's, in EC2's words
	Hostname       string // "" is the machine's; likewise the next three
	LocalIPv4      string
	IPv6           string
	MAC            string // with colons
	PublicIPv4     string
	PublicHostname string
	SecurityGroups []string // names; none is "default"
	Tags           map[string]string
	PublicKeys     []PublicKey
	UserDataFile   string    // absolute path, read for each request; "" for none
	PendingTime    time.Time // when "the instance" was launched; zero is the server's start

	seed   string // of made up ids: the machine's id
	learnt string // the account as credentials told it last
}

// accountKnown reports whether the account can be told without asking for
// credentials: what is listed must answer, or crawlers give up.
func (f *Facts) accountKnown() bool { return f.AccountID != "" || f.learnt != "" }

// PublicKey is one entry of public-keys.
type PublicKey struct {
	Name string
	Key  string // in the form of OpenSSH: type, key, comment
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

// fill puts the machine's own values where there are none.
func (f *Facts) fill(m *machine) {
	for _, v := range []struct {
		fact *string
		own  string
	}{{&f.Hostname, m.hostname}, {&f.LocalIPv4, m.ipv4}, {&f.IPv6, m.ipv6}, {&f.MAC, m.mac}} {
		if *v.fact == "" {
			*v.fact = v.own
		}
	}
	f.MAC = strings.ToLower(f.MAC) // as EC2 writes it
	f.seed = m.id
	if f.MAC == "" && f.LocalIPv4 != "" { // a machine without hardware, such as a container
		sum := f.sum("mac", "")
		mac := []byte(hex.EncodeToString(sum[:5]))
		f.MAC = "02:" + string(mac[:2]) + ":" + string(mac[2:4]) + ":" + string(mac[4:6]) + ":" + string(mac[6:8]) + ":" + string(mac[8:])
	}
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

func (f *Facts) instanceID() string    { return f.id(f.InstanceID, "i-", "instance", "") }
func (f *Facts) imageID() string       { return f.id(f.ImageID, "ami-", "image", "") }
func (f *Facts) reservationID() string { return f.id(f.ReservationID, "r-", "reservation", "") }
func (f *Facts) vpcID() string         { return f.id(f.VPCID, "vpc-", "vpc", "") }
func (f *Facts) subnetID() string      { return f.id(f.SubnetID, "subnet-", "subnet", "") }
func (f *Facts) interfaceID() string   { return f.id("", "eni-", "interface", f.MAC) }

// id is set, or else 17 hex digits after prefix, as EC2 writes ids: always
// the same for the same thing of the same machine.
func (f *Facts) id(set, prefix, kind, name string) string {
	if set != "" {
		return set
	}
	sum := f.sum(kind, name)
	return prefix + hex.EncodeToString(sum[:9])[:17]
}

// sum is what made up values are made of. The machine's id is nobody else's
// business: only this hash of it is seen.
func (f *Facts) sum(kind, name string) [sha256.Size]byte {
	seed := f.seed
	if seed == "" {
		seed = f.Hostname
	}
	return sha256.Sum256([]byte("keyfob " + kind + "\x00" + name + "\x00" + seed))
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

func (f *Facts) securityGroups() []string {
	if len(f.SecurityGroups) > 0 {
		return f.SecurityGroups
	}
	return []string{"default"}
}

func (f *Facts) securityGroupIDs() []string {
	var ids []string
	for _, name := range f.securityGroups() {
		ids = append(ids, f.id("", "sg-", "security group", name))
	}
	return ids
}

// block is the network of so many bits that address is in, "" for none.
func block(address string, bits int) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// instanceProfileID looks like the id of an instance profile and is always
// the same for the same role.
func (f *Facts) instanceProfileID(account string) string {
	sum := sha256.Sum256([]byte("keyfob instance profile\x00" + account + "\x00" + f.RoleName))
	return "AIPA" + base32.StdEncoding.EncodeToString(sum[:])[:17]
}

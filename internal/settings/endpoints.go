package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// chooseEndpoints: an address by flag or environment is one endpoint of its
// kind for the default profile, in place of the file's of that kind.
func (s *Settings) chooseEndpoints(f Flags, env func(string) string, d *decider) {
	given := map[string]Endpoint{}
	for kind, where := range map[string][3]string{
		"imds":      {f.IMDS, "--imds", "KEYFOB_IMDS"},
		"container": {f.Container, "--container", "KEYFOB_CONTAINER"},
	} {
		listen, from := d.choose(place{flag: where[1]}, where[0], where[2], "", "", "")
		if listen == "" {
			continue
		}
		addr, err := splitListen(listen)
		if err != nil {
			d.problem(d.bad(from, "an address and a port, such as 127.0.0.1:9911: "+err.Error(), listen))
			continue
		}
		e := Endpoint{Kind: kind, Listen: addr}
		if kind == "imds" {
			e.Profile = s.Profile
		}
		given[kind] = e
	}
	var fromFile []Endpoint
	for i := range d.file.Endpoint {
		// All are checked, also those in whose place a flag stands.
		fromFile = append(fromFile, s.endpoint(d, element("endpoint", i), &d.file.Endpoint[i]))
	}
	for _, kind := range []string{"imds", "container"} {
		if e, ok := given[kind]; ok {
			s.Endpoints = append(s.Endpoints, e)
			continue
		}
		for _, e := range fromFile {
			if e.Kind == kind {
				s.Endpoints = append(s.Endpoints, e)
			}
		}
	}
	seen := map[string]bool{}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if seen[e.Listen] && !strings.HasSuffix(e.Listen, ":0") {
			key := e.key
			if key != "" {
				key += ".listen"
			}
			d.problem(s.Bad(key, "one endpoint for each address", "%s is the address of two endpoints", e.Listen))
		}
		seen[e.Listen] = e.Listen != ""
	}
}

// endpoint checks one [[endpoint]] of the file; key is its path there.
func (s *Settings) endpoint(d *decider, key string, fe *fileEndpoint) Endpoint {
	bad := func(name, help, format string, args ...any) { d.wrong(key+name, help, format, args...) }
	if fe.Kind != "imds" && fe.Kind != "container" {
		bad(".kind", `kind = "imds" or kind = "container"`, "an [[endpoint]] has the kind %q", fe.Kind)
	}
	listen, err := splitListen(fe.Listen)
	switch {
	case fe.Listen == "":
		bad("", "an address and a port, such as 127.0.0.1:9911", "an [[endpoint]] has no listen address")
	case err != nil:
		bad(".listen", "an address and a port, such as 127.0.0.1:9911", "it is not possible to listen on %q: %v", fe.Listen, err)
	}
	e := Endpoint{Kind: fe.Kind, Listen: listen, Profile: fe.Profile, Hosts: fe.Hosts, IMDSv1: fe.IMDSv1,
		AllowUsers: fe.AllowUsers, AllowGroups: fe.AllowGroups, AllowUnidentified: fe.AllowUnidentified, key: key}
	if fe.Kind == "container" {
		for name, set := range map[string]bool{"profile": fe.Profile != "", "imdsv1": fe.IMDSv1, "user": len(fe.User) > 0,
			"policy": fe.Policy != "", "policy_arns": len(fe.PolicyARNs) > 0, "metadata": fe.Metadata != nil} {
			if set {
				bad("."+name, "keyfob grant add says which profile, and with --policy how little of it", "a container endpoint takes no %s: grants open it", name)
			}
		}
	} else if e.Profile == "" {
		e.Profile = s.Profile
	}
	e.TLSCert, e.TLSKey = d.tls(key, fe)
	if e.Kind == "container" && e.TLSCert == "" && fe.TLSCert == "" && e.AllowUnidentified && listen != "" && !staysHere(listen) {
		bad(".allow_unidentified", "tls_cert and tls_key make it speak https (keyfobd make-certificate makes both); AWS clients take plain http from 127.0.0.1, 169.254.170.2 and 169.254.170.23 alone",
			"the endpoint %s would hand credentials to other machines and containers over plain http", listen)
	}
	for i, host := range fe.Hosts {
		if !isHost(host) {
			bad(element(".hosts", i), "a name or an address, without scheme, port or path", "%q is no host name", host)
		}
	}
	e.AllowPrograms = d.programs(key+".allow_programs", fe.AllowPrograms)
	seen := map[string]bool{}
	for i, u := range fe.User {
		at := element(".user", i)
		switch {
		case u.User == "" || u.Profile == "":
			bad(at, `user = "name or id" and profile = "name"`, "an [[endpoint.user]] needs a user and a profile")
		case seen[u.User]:
			bad(at+".user", "", "the user %q has two [[endpoint.user]] here", u.User)
		}
		seen[u.User] = true
		e.Users = append(e.Users, EndpointUser(u))
	}
	if fe.Policy != "" {
		e.Policy = d.filePath(fe.Policy)
	}
	e.PolicyARNs = d.policyARNs(key+".policy_arns", fe.PolicyARNs)
	if fe.Metadata != nil {
		e.Metadata = d.metadata(key+".metadata", fe.Metadata)
	}
	return e
}

// tls checks what makes an endpoint speak TLS. The files themselves are read
// by whoever serves.
func (d *decider) tls(key string, fe *fileEndpoint) (cert, private string) {
	if fe.TLSCert == "" && fe.TLSKey == "" {
		return "", ""
	}
	has, lacks := "tls_cert", "tls_key"
	if fe.TLSCert == "" {
		has, lacks = lacks, has
	}
	switch {
	case fe.Kind == "imds":
		d.wrong(key+"."+has, `clients of the metadata endpoint speak plain http alone; for containers on a bridge: kind = "container"`, "an imds endpoint takes no %s", has)
	case fe.TLSCert == "" || fe.TLSKey == "":
		d.wrong(key+"."+has, "the certificate and its private key, two files in PEM: keyfobd make-certificate makes them", "an [[endpoint]] has %s and no %s", has, lacks)
	default:
		return d.filePath(fe.TLSCert), d.filePath(fe.TLSKey)
	}
	return "", ""
}

// staysHere reports whether what is sent from a listening address to others
// stays on this machine, or in the network namespace that they share with it.
// They are the addresses that AWS clients take plain http from, and whatever
// else is link-local.
func staysHere(listen string) bool {
	host := listen[:strings.LastIndexByte(listen, ':')]
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.WithZone("") == netip.MustParseAddr("fd00:ec2::23"))
}

// chooseRules checks the [[profile]] rules.
func (s *Settings) chooseRules(d *decider) {
	for i := range d.file.rules {
		fr := &d.file.rules[i]
		key := element("profile", i)
		if fr.Name == "" {
			d.wrong(key, "", "a [[profile]] has no name")
		}
		r := ProfileRule{Name: fr.Name, AllowUsers: fr.AllowUsers, AllowGroups: fr.AllowGroups, Protected: fr.Protected, key: key}
		r.AllowPrograms = d.programs(key+".allow_programs", fr.AllowPrograms)
		if fr.SessionPolicy != "" {
			r.SessionPolicy = d.filePath(fr.SessionPolicy)
		}
		r.SessionPolicyARNs = d.policyARNs(key+".session_policy_arns", fr.SessionPolicyARNs)
		s.ProfileRules = append(s.ProfileRules, r)
	}
}

// programs reads allow_programs, whose elements are paths or
// { path = "…", sha256 = "…" }. nil stays nil: no such setting is every
// program, an empty list none.
func (d *decider) programs(key string, list []any) []Program {
	if list == nil {
		return nil
	}
	const help = `"/usr/bin/terraform" or { path = "/usr/bin/terraform", sha256 = "…" }`
	out := []Program{}
	for i, v := range list {
		at, before := element(key, i), len(d.problems)
		var p Program
		switch v := v.(type) {
		case string:
			p.Path = v
		case map[string]any:
			for name, value := range v {
				text, isText := value.(string)
				switch {
				case name == "path" && isText:
					p.Path = text
				case name == "sha256" && isText && len(text) == 64 && only(text, digits, "abcdefABCDEF"):
					p.SHA256 = strings.ToLower(text)
				case name == "sha256":
					d.wrong(at+".sha256", "64 hexadecimal digits, as sha256sum prints them", "the value of sha256 is no SHA-256")
				case name == "path":
					d.wrong(at+".path", help, "the value of path is of the wrong kind")
				default:
					d.wrong(at+"."+name, help, "there is no setting %q in a program", name)
				}
			}
		default:
			d.wrong(at, help, "a program is of the wrong kind")
		}
		if strings.HasPrefix(p.Path, "~/") {
			p.Path = abs(p.Path, d.home)
		}
		if len(d.problems) == before && !filepath.IsAbs(p.Path) {
			d.wrong(at, help, "the program %q is not an absolute path", p.Path)
		}
		out = append(out, p)
	}
	return out
}

// MaxPolicyARNs is how many managed policies a session takes
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
const MaxPolicyARNs = 10

// ValidPolicyARN reports whether s has the form of a managed policy's ARN.
func ValidPolicyARN(s string) bool {
	part := strings.SplitN(s, ":", 6)
	return len(part) == 6 && len(s) <= 2048 && part[0] == "arn" && isPartition(part[1]) && part[2] == "iam" && part[3] == "" &&
		(part[4] == "aws" || isAccount(part[4])) && len(part[5]) > len("policy/") && strings.HasPrefix(part[5], "policy/") &&
		!strings.ContainsFunc(part[5], func(r rune) bool { return r <= ' ' || r > '~' })
}

func (d *decider) policyARNs(key string, list []string) []string {
	for i, arn := range list {
		if !ValidPolicyARN(arn) {
			d.wrong(element(key, i), "such as arn:aws:iam::aws:policy/ReadOnlyAccess", "%q is no ARN of a managed policy", arn)
		}
	}
	if len(list) > MaxPolicyARNs {
		d.wrong(key, "", "a session takes %d managed policies at most, and these are %d", MaxPolicyARNs, len(list))
	}
	return list
}

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// only reports whether s is not empty and has these characters alone.
// (Package regexp would cost the client a part of its start.)
func only(s string, chars ...string) bool {
	for _, c := range s {
		if !slices.ContainsFunc(chars, func(set string) bool { return strings.ContainsRune(set, c) }) {
			return false
		}
	}
	return s != ""
}

func isAccount(s string) bool { return len(s) == 12 && only(s, digits) }
func isID(s string) bool      { return only(s, lower, upper, digits, "._-") }
func isRegion(s string) bool {
	return only(s, lower, digits, "-") && strings.Contains(s, "-") && !strings.HasPrefix(s, "-") && !strings.HasSuffix(s, "-")
}
func isPartition(s string) bool {
	return s == "aws" || strings.HasPrefix(s, "aws-") && only(s[len("aws-"):], lower, digits, "-")
}
func isMAC(s string) bool {
	pairs := strings.Split(s, ":")
	return len(pairs) == 6 && !slices.ContainsFunc(pairs, func(p string) bool { return len(p) != 2 || !only(p, digits, "abcdef") })
}

// metadata checks [endpoint.metadata]: programs take these values apart.
func (d *decider) metadata(key string, f *fileMetadata) Metadata {
	m := Metadata{InstanceID: f.InstanceID, ImageID: f.ImageID, InstanceType: f.InstanceType, Hostname: f.Hostname,
		LocalIPv4: f.LocalIPv4, IPv6: f.IPv6, PublicIPv4: f.PublicIPv4, PublicHostname: f.PublicHostname, MAC: strings.ToLower(f.MAC),
		Region: f.Region, Zone: f.Zone, ZoneID: f.ZoneID, AccountID: f.AccountID, Partition: f.Partition, VPCID: f.VPCID,
		SubnetID: f.SubnetID, ReservationID: f.ReservationID, SecurityGroups: f.SecurityGroups, Tags: f.Tags}
	ip := func(is4 bool) func(string) bool {
		return func(s string) bool {
			a, err := netip.ParseAddr(s)
			return err == nil && a.Is4() == is4 && a.Zone() == ""
		}
	}
	for _, c := range []struct {
		name, value, what string
		ok                func(string) bool
	}{
		{"instance_id", m.InstanceID, "an id, such as i-0123456789abcdef0", isID},
		{"ami_id", m.ImageID, "an id, such as ami-0123456789abcdef0", isID},
		{"instance_type", m.InstanceType, "a type, such as t3.micro", isID},
		{"hostname", m.Hostname, "a host name", isHost},
		{"local_ipv4", m.LocalIPv4, "an IPv4 address", ip(true)},
		{"ipv6", m.IPv6, "an IPv6 address", ip(false)},
		{"public_ipv4", m.PublicIPv4, "an IPv4 address", ip(true)},
		{"public_hostname", m.PublicHostname, "a host name", isHost},
		{"mac", m.MAC, "six pairs of hexadecimal digits, with colons", isMAC},
		{"region", m.Region, "a region, such as eu-central-1", isRegion},
		{"availability_zone", m.Zone, "a zone, such as eu-central-1a", isRegion},
		{"availability_zone_id", m.ZoneID, "a zone's id, such as euc1-az1", isID},
		{"account_id", m.AccountID, "twelve digits", isAccount},
		{"partition", m.Partition, "a partition, such as aws", isPartition},
		{"vpc_id", m.VPCID, "an id, such as vpc-0123456789abcdef0", isID},
		{"subnet_id", m.SubnetID, "an id, such as subnet-0123456789abcdef0", isID},
		{"reservation_id", m.ReservationID, "an id, such as r-0123456789abcdef0", isID},
	} {
		if c.value != "" && !c.ok(c.value) {
			d.wrong(key+"."+c.name, c.what, "%s is %q", c.name, c.value)
		}
	}
	for i, g := range m.SecurityGroups {
		if g == "" || strings.ContainsFunc(g, unicode.IsControl) {
			d.wrong(element(key+".security_groups", i), "", "a security group's name is empty or has control characters")
		}
	}
	for name, value := range m.Tags {
		// EC2's rule for tags in the metadata: a key is a segment of a path.
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, " /") || strings.ContainsFunc(name+value, unicode.IsControl) {
			d.wrong(key+".tags."+name, "no spaces or slashes in a tag's key, no control characters in either", "the tag %q can't be told", name)
		}
	}
	if f.UserDataFile != "" {
		m.UserDataFile = d.filePath(f.UserDataFile)
	}
	return m
}

// splitListen returns an address to listen on in its shortest form. It
// refuses a missing port and an address that would be every interface:
// whoever wants that names each address.
func splitListen(addr string) (string, error) {
	i := strings.LastIndexByte(addr, ':')
	if i < 0 {
		return "", errors.New("it has no port")
	}
	host, port := addr[:i], addr[i+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%q is no port", port)
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(bare)
	switch {
	case host == "" || err == nil && ip.Unmap().IsUnspecified():
		return "", errors.New("it would be open on every interface")
	case err == nil:
		return netip.AddrPortFrom(ip.Unmap(), uint16(n)).String(), nil
	case host != bare || !isHost(host):
		return "", fmt.Errorf("%q is no address", host)
	}
	return strings.ToLower(host) + ":" + strconv.FormatUint(n, 10), nil
}

// IsHost reports whether s is a host name or an address, and nothing more.
func IsHost(s string) bool { return isHost(s) }

func isHost(s string) bool {
	if _, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return true
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(s, "."), ".") {
		if len(label) > 63 || !only(label, lower, upper, digits, "_-") || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

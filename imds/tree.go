package imds

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// table is every route of the metadata service, sorted by pattern. What EC2
// has and is not here answers 404, as it does on an instance that lacks it:
// there is no spot market, no placement group and no RAM disk on this
// machine, and nobody but AWS can sign an identity document.
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html)
func (m *metadata) table() []route {
	const maxBody = 1 << 10 // of a token PUT, whose body means nothing
	get := func(pattern string, value func(*Facts) string) route {
		return route{methods: methodGet, pattern: pattern, access: accessToken, value: value}
	}
	fixed := func(pattern, text string) route {
		return get(pattern, func(*Facts) string { return text })
	}
	serve := func(pattern string, serve func(*exchange) *fault) route {
		return route{methods: methodGet, pattern: pattern, access: accessToken, serve: serve}
	}
	below := func(pattern string, below func(*Facts) []leaf) route {
		r := serve(pattern, func(x *exchange) *fault {
			facts := m.facts(x.profile)
			return x.leaf(below(&facts))
		})
		r.below = below
		return r
	}
	hidden := func(r route) route { r.hidden = true; return r }
	listed := func(r route, listed func(*Facts) bool) route { r.listed = listed; return r }

	network := serve("/{version}/meta-data/network/interfaces/macs/{...}", m.network)
	network.below = networkInterfaces

	return []route{
		{methods: methodPut, pattern: "/latest/api/token", access: accessCaller, maxBody: maxBody, serve: m.newToken},
		{methods: methodPut, pattern: "/{date}/api/token", access: accessRefused, maxBody: maxBody},
		fixed("/{version}/dynamic/fws/instance-monitoring", "disabled"),
		serve("/{version}/dynamic/instance-identity/document", m.document),
		get("/{version}/meta-data/ami-id", (*Facts).imageID),
		fixed("/{version}/meta-data/ami-launch-index", "0"),
		fixed("/{version}/meta-data/ami-manifest-path", "(unknown)"),
		// EC2 has it on instances of a scaling group alone: it is there for
		// those who ask, and not listed.
		hidden(fixed("/{version}/meta-data/autoscaling/target-lifecycle-state", "InService")),
		fixed("/{version}/meta-data/block-device-mapping/ami", "/dev/xvda"),
		fixed("/{version}/meta-data/block-device-mapping/root", "/dev/xvda"),
		fixed("/{version}/meta-data/events/maintenance/history", "[]"),
		fixed("/{version}/meta-data/events/maintenance/scheduled", "[]"),
		get("/{version}/meta-data/hostname", func(f *Facts) string { return f.Hostname }),
		listed(serve("/{version}/meta-data/iam/info", m.info), func(f *Facts) bool { return f.RoleName != "" && f.accountKnown() }),
		get("/{version}/meta-data/iam/security-credentials", func(f *Facts) string { return f.RoleName }),
		hidden(get("/{version}/meta-data/iam/security-credentials-extended", func(f *Facts) string { return f.RoleName })),
		serve("/{version}/meta-data/iam/security-credentials-extended/{role}", m.extendedCredentials),
		serve("/{version}/meta-data/iam/security-credentials/{role}", m.credentials),
		listed(serve("/{version}/meta-data/identity-credentials/ec2/info", m.identityInfo), (*Facts).accountKnown),
		fixed("/{version}/meta-data/instance-action", "none"),
		get("/{version}/meta-data/instance-id", (*Facts).instanceID),
		fixed("/{version}/meta-data/instance-life-cycle", "on-demand"),
		get("/{version}/meta-data/instance-type", (*Facts).instanceType),
		get("/{version}/meta-data/ipv6", func(f *Facts) string { return f.IPv6 }),
		get("/{version}/meta-data/local-hostname", func(f *Facts) string { return f.Hostname }),
		get("/{version}/meta-data/local-ipv4", func(f *Facts) string { return f.LocalIPv4 }),
		get("/{version}/meta-data/mac", func(f *Facts) string { return f.MAC }),
		fixed("/{version}/meta-data/metrics/vhostmd", `<?xml version="1.0" encoding="UTF-8"?>`),
		network,
		get("/{version}/meta-data/placement/availability-zone", (*Facts).zone),
		get("/{version}/meta-data/placement/availability-zone-id", func(f *Facts) string { return f.ZoneID }),
		get("/{version}/meta-data/placement/region", func(f *Facts) string { return f.Region }),
		fixed("/{version}/meta-data/profile", "default-hvm"),
		get("/{version}/meta-data/public-hostname", func(f *Facts) string { return f.PublicHostname }),
		get("/{version}/meta-data/public-ipv4", func(f *Facts) string { return f.PublicIPv4 }),
		below("/{version}/meta-data/public-keys/{...}", publicKeys),
		get("/{version}/meta-data/reservation-id", (*Facts).reservationID),
		get("/{version}/meta-data/security-groups", func(f *Facts) string { return strings.Join(f.securityGroups(), "\n") }),
		get("/{version}/meta-data/services/domain", (*Facts).domain),
		get("/{version}/meta-data/services/partition", (*Facts).partition),
		fixed("/{version}/meta-data/system", "nitro"),
		below("/{version}/meta-data/tags/instance/{...}", tags),
		listed(serve("/{version}/user-data", m.userData), func(f *Facts) bool { return f.UserDataFile != "" }),
	}
}

// leaf is a value below a directory whose names are facts.
type leaf struct {
	path  string // below that directory, unescaped; segments hold no "/"
	value string
	label string // how the first segment is listed, "" for by its name
}

// publicKeys are listed as numbers with names; a number is the directory.
func publicKeys(f *Facts) []leaf {
	var leaves []leaf
	for i, k := range f.PublicKeys {
		n := strconv.Itoa(i)
		leaves = append(leaves, leaf{n + "/openssh-key", k.Key, n + "=" + k.Name})
	}
	return leaves
}

// tags are those whose keys EC2 would show.
func tags(f *Facts) []leaf {
	var leaves []leaf
	for k, v := range f.Tags {
		if tagKey(k) {
			leaves = append(leaves, leaf{path: k, value: v})
		}
	}
	slices.SortFunc(leaves, func(a, b leaf) int { return strings.Compare(a.path, b.path) })
	return leaves
}

// tagKey reports whether EC2 lets the key of a tag into the metadata
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html).
func tagKey(k string) bool {
	if k == "" || k == "." || k == ".." || k == "_index" {
		return false
	}
	for i := 0; i < len(k); i++ {
		if c := k[i]; !roleByte(c) && c != ':' {
			return false
		}
	}
	return true
}

// networkInterfaces is the one interface there is, by its MAC.
func networkInterfaces(f *Facts) []leaf {
	if f.MAC == "" {
		return nil
	}
	var leaves []leaf
	add := func(name, value string) {
		if value != "" {
			leaves = append(leaves, leaf{path: f.MAC + "/" + name, value: value})
		}
	}
	add("device-number", "0")
	add("interface-id", f.interfaceID())
	if f.PublicIPv4 != "" {
		add("ipv4-associations/"+f.PublicIPv4, f.LocalIPv4)
	}
	add("ipv6s", f.IPv6)
	add("local-hostname", f.Hostname)
	add("local-ipv4s", f.LocalIPv4)
	add("mac", f.MAC)
	add("owner-id", f.AccountID)
	add("public-hostname", f.PublicHostname)
	add("public-ipv4s", f.PublicIPv4)
	add("security-group-ids", strings.Join(f.securityGroupIDs(), "\n"))
	add("security-groups", strings.Join(f.securityGroups(), "\n"))
	add("subnet-id", f.subnetID())
	// Blocks of the sizes that AWS gives by default.
	add("subnet-ipv4-cidr-block", block(f.LocalIPv4, 20))
	add("subnet-ipv6-cidr-blocks", block(f.IPv6, 64))
	add("vpc-id", f.vpcID())
	add("vpc-ipv4-cidr-block", block(f.LocalIPv4, 16))
	add("vpc-ipv4-cidr-blocks", block(f.LocalIPv4, 16))
	add("vpc-ipv6-cidr-blocks", block(f.IPv6, 56))
	return leaves
}

// network answers what is below network/interfaces/macs. The owner is known
// once there were credentials; nobody waits for it.
func (m *metadata) network(x *exchange) *fault {
	facts := m.facts(x.profile)
	if facts.AccountID == "" {
		facts.AccountID = cmp.Or(m.accountNow(x), facts.learnt)
	}
	return x.leaf(networkInterfaces(&facts))
}

// leaf answers the request's path below the directory of these leaves: a
// value, or a listing.
func (x *exchange) leaf(leaves []leaf) *fault {
	path, ok := unescaped(strings.TrimSuffix(x.param, "/"))
	if !ok {
		return x.unknown()
	}
	for i := range leaves {
		if leaves[i].path == path {
			x.text(leaves[i].value)
			return nil
		}
	}
	names := listLeaves(leaves, path+"/")
	if len(names) == 0 {
		return x.unknown()
	}
	x.text(strings.Join(names, "\n"))
	return nil
}

// unescaped unescapes each segment of a path; none may be what parameter
// refuses.
func unescaped(path string) (string, bool) {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		var ok bool
		if segments[i], ok = parameter(s); !ok {
			return "", false
		}
	}
	return strings.Join(segments, "/"), true
}

// listLeaves returns the names directly below prefix, which is "" or ends in
// "/", in the order of the leaves.
func listLeaves(leaves []leaf, prefix string) []string {
	var names []string
	for i := range leaves {
		rest, ok := strings.CutPrefix(leaves[i].path, prefix)
		if !ok {
			continue
		}
		name, _, directory := strings.Cut(rest, "/")
		switch {
		case prefix == "" && leaves[i].label != "":
			name = leaves[i].label
		case directory:
			name += "/"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// userData answers with the bytes of a file.
func (m *metadata) userData(x *exchange) *fault {
	facts := m.facts(x.profile)
	if facts.UserDataFile == "" {
		return x.unknown()
	}
	data, modified, err := readUserData(facts.UserDataFile)
	if err != nil {
		f := notFound()
		f.reason = err.Error()
		return f
	}
	if len(data) == 0 {
		return x.unknown()
	}
	x.head(http.StatusOK, typeBytes)
	serveBytes(x, data, modified)
	return nil
}

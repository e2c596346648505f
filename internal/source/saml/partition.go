package saml

import (
	"net/url"
	"strings"

	"keyfob/profiles"
)

// partition is what AWS's sign-in is called in a partition
// (https://docs.aws.amazon.com/general/latest/gr/signin-service.html).
type partition struct {
	name      string
	host      string   // where identity providers post to; regions have names below it
	audiences []string // besides the addresses of host
}

func partitions() []partition {
	return []partition{
		{"aws", "signin.aws.amazon.com", []string{"urn:amazon:webservices"}},
		{"aws-cn", "signin.amazonaws.cn", []string{"urn:amazon:webservices:cn-north-1", "urn:amazon:webservices:cn-northwest-1"}},
		{"aws-us-gov", "signin.amazonaws-us-gov.com", []string{"urn:amazon:webservices:govcloud"}},
	}
}

// known is the partition of that name.
func known(name string) (partition, bool) {
	for _, p := range partitions() {
		if p.name == name {
			return p, true
		}
	}
	return partition{name: name}, false
}

// ofRegion is the partition of a region, "" for one that no rule names.
func ofRegion(region string) string {
	for _, p := range []struct{ prefix, name string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"us-isob-", "aws-iso-b"}, {"us-isof-", "aws-iso-f"}, {"us-iso-", "aws-iso"},
		{"eu-isoe-", "aws-iso-e"}, {"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.name
		}
	}
	if region == "" {
		return ""
	}
	return "aws"
}

// at reports whether address is a sign-in address of p:
// https://[REGION.]HOST/saml[/acs/ID].
func (p partition) at(address string) bool {
	u, err := url.Parse(address)
	if err != nil || p.host == "" || u.Scheme != "https" {
		return false
	}
	host := strings.ToLower(u.Hostname())
	return (host == p.host || strings.HasSuffix(host, "."+p.host)) && samlPath(u.Path, "/saml")
}

func samlPath(path, base string) bool {
	path = strings.TrimSuffix(path, "/")
	return path == base || strings.HasPrefix(path, base+"/acs/")
}

// addressee is for whom AWS takes assertions by a link's settings.
type addressee struct {
	partition
	known    bool
	endpoint string // where the form is posted to, "" where nothing tells
	own      string // the address that the settings name in place of AWS's, "" for none
}

// addresseeOf works out the addressee of a link in a partition. An
// endpoint URL of the sign-in service stands for its address.
func addresseeOf(c profiles.Client, partitionName string) addressee {
	var a addressee
	a.partition, a.known = known(partitionName)
	if a.known {
		a.endpoint = "https://" + a.host + "/saml"
	}
	base := c.EndpointURL["signin"]
	if base == "" {
		base = c.EndpointURL[""]
	}
	if u, err := url.Parse(base); err == nil && u.Host != "" {
		a.own = strings.TrimSuffix(u.Scheme+"://"+u.Host+u.EscapedPath(), "/") + "/saml"
		a.endpoint = a.own
	}
	return a
}

// takes reports whether recipient, an address that an assertion may be
// delivered to, is this one. What can't be judged is taken.
func (a addressee) takes(recipient string) bool {
	if a.own != "" {
		if u, err := url.Parse(recipient); err == nil {
			if o, err := url.Parse(a.own); err == nil && u.Scheme == o.Scheme && strings.EqualFold(u.Host, o.Host) && samlPath(u.Path, o.Path) {
				return true
			}
		}
	}
	return !a.known || a.at(recipient)
}

// hears reports whether an audience is this one.
func (a addressee) hears(audience string) bool {
	for _, own := range a.audiences {
		if audience == own {
			return true
		}
	}
	return audience == a.host && a.host != "" || a.takes(audience)
}

// elsewhere is the partition, other than this one, that an address or an
// audience belongs to; "" for none.
func (a addressee) elsewhere(text string) string {
	for _, p := range partitions() {
		other := addressee{partition: p, known: true}
		if p.name != a.name && other.hears(text) {
			return p.name
		}
	}
	return ""
}

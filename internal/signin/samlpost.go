package signin

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
)

// target is an address to which identity providers post a SAML response.
type target struct {
	scheme, host string // host with its port, without the scheme's default one
	path         string
	subdomains   bool // REGION.signin.aws.amazon.com is that service as well
}

// partitionTargets are AWS's sign-in addresses
// (https://docs.aws.amazon.com/general/latest/gr/signin-service.html). Each of
// them is watched in every sign-in: a provider that posts to another
// partition, or to a region's own address, must not get an assertion out of
// the machine only because the settings name another one.
func partitionTargets() []target {
	var all []target
	for _, host := range []string{"signin.aws.amazon.com", "signin.amazonaws.cn", "signin.amazonaws-us-gov.com"} {
		all = append(all, target{"https", host, "/saml", true})
	}
	return all
}

// newTargets are those to watch when the settings name endpoint.
func newTargets(endpoint string) ([]target, error) {
	u, err := webURL("saml_endpoint", endpoint)
	if err != nil {
		return nil, err
	}
	own := target{u.Scheme, hostPort(u), strings.TrimSuffix(u.EscapedPath(), "/"), false}
	if own.path == "" {
		return nil, fmt.Errorf("%w: saml_endpoint has no path", errUsage)
	}
	return append(partitionTargets(), own), nil
}

// webURL reads a URL of the request. Its errors do not quote it.
func webURL(name, raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%w: %s is not a web address", errUsage, name)
	}
	return u, nil
}

func hostPort(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		return host
	}
	return host + ":" + port
}

// pattern is a wildcard for the browser that lets every address of t be
// looked at, and some others, which is decides.
func (t target) pattern() string {
	p := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`).Replace(t.path)
	return t.scheme + "://*" + t.host + "*" + p + "*"
}

// is reports whether a request's address is t.
func (t target) is(u *url.URL) bool {
	host := hostPort(u)
	if u.Scheme != t.scheme || host != t.host && !(t.subdomains && strings.HasSuffix(host, "."+t.host)) {
		return false
	}
	path := u.EscapedPath()
	return path == t.path || path == t.path+"/" || strings.HasPrefix(path, t.path+"/acs/")
}

// samlResponse is the assertion in the body of a form that was posted
// (application/x-www-form-urlencoded): standard base64 without line ends; ""
// when there is none.
func samlResponse(body string) string {
	// Not url.ParseQuery: one bad field must not hide the one that counts.
	for field := range strings.SplitSeq(body, "&") {
		name, value, _ := strings.Cut(field, "=")
		if name != "SAMLResponse" {
			continue
		}
		value, err := url.QueryUnescape(value)
		if err != nil {
			return ""
		}
		value = strings.Join(strings.Fields(value), "")
		if _, err := base64.StdEncoding.DecodeString(value); err != nil {
			return ""
		}
		return value
	}
	return ""
}

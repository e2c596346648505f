package ops

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Reached is what a look at an endpoint of AWS showed.
type Reached struct {
	URL   string // as it would be called, "" where the settings give none
	Proxy string // host of the proxy in between, "" for none
	// ClockKnown: the answer's Date can be trusted; Skew is then AWS's clock
	// minus ours, 0 within a minute.
	ClockKnown bool
	Skew       time.Duration
}

// ReachSTS asks the STS endpoint of the settings for nothing that takes
// credentials: name, connection, TLS, proxy and answer are those of every call.
// An answer that refuses is one. Error: *cred.UpstreamError, which says what
// did not go.
func (d Deps) ReachSTS(ctx context.Context, settings profiles.Client) (Reached, error) {
	var out Reached
	if u, err := awsclient.STSEndpoint(ctx, settings); err == nil {
		out.URL = u.Scheme + "://" + u.Host
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	pool, done := d.pool()
	defer done()
	var seen awsclient.Seen
	client, err := awsclient.STS(ctx, settings, nil, awsclient.Options{Pool: pool, Seen: &seen})
	if err == nil {
		_, err = client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	}
	d.tellSkew(&seen)
	f := seen.Facts()
	out.Proxy, out.ClockKnown, out.Skew = f.Proxy, f.DateKnown, f.Skew
	if err == nil {
		return out, nil
	}
	if k := awsclient.Explain(err, &seen); k.Kind == awsclient.Refused && f.Requests > 0 || k.Kind == awsclient.Clock {
		return out, nil
	}
	return out, failed("GetCallerIdentity", "reach STS", cred.Credentials{}, err, &seen)
}

// ProxyTakes lists those of the addresses that clients would ask a proxy for,
// by an environment as they read it: http_proxy (or ALL_PROXY) is set and
// no_proxy does not name them. proxy is the variable. Libraries differ in
// what they take for no_proxy; what each of them understands counts: addresses
// and networks, and * for all.
func ProxyTakes(env map[string]string, addresses ...string) (proxy string, taken []string) {
	get := func(name string) (string, string) {
		for _, n := range []string{strings.ToLower(name), strings.ToUpper(name)} {
			if v := strings.TrimSpace(env[n]); v != "" {
				return n, v
			}
		}
		return "", ""
	}
	if proxy, _ = get("http_proxy"); proxy == "" {
		if proxy, _ = get("all_proxy"); proxy == "" {
			return "", nil
		}
	}
	_, except := get("no_proxy")
	for _, address := range addresses {
		ip, err := netip.ParseAddr(address)
		if err == nil && !excepted(except, ip) {
			taken = append(taken, address)
		}
	}
	if len(taken) == 0 {
		proxy = ""
	}
	return proxy, taken
}

func excepted(list string, ip netip.Addr) bool {
	for _, e := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		if e == "*" {
			return true
		}
		if p, err := netip.ParsePrefix(e); err == nil && p.Contains(ip) {
			return true
		}
		if a, err := netip.ParseAddr(e); err == nil && a == ip {
			return true
		}
		if ap, err := netip.ParseAddrPort(e); err == nil && ap.Addr() == ip {
			return true
		}
	}
	return false
}

package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"keyfob/imds"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/ops"
	"keyfob/profiles"
)

// endpointLimit bounds one request to an endpoint of our own.
const endpointLimit = 2 * time.Second

// endpointPart asks each endpoint as a program would.
func (x *checkup) endpointPart(ctx context.Context) (out checks) {
	type place struct {
		kind, addr, profile string
		certificate         *imds.Certificate
	}
	var all []place
	for _, e := range x.endpoints() {
		how := e.now.Load()
		all = append(all, place{e.kind, e.address(), how.Profile, how.certificate})
	}
	if addr := x.exec.address(); addr != "" {
		all = append(all, place{cred.ViaContainer, addr, "", nil})
	}
	if len(all) == 0 {
		out.add(groupEndpoints, "endpoints", control.CheckOK, "the settings have no endpoint: programs get credentials by credential_process and keyfob exec")
		return out
	}
	found := make([]checks, len(all))
	var wait sync.WaitGroup
	for i, p := range all {
		wait.Go(func() { x.endpointCheck(ctx, &found[i], p.kind, p.addr, p.profile, p.certificate) })
	}
	wait.Wait()
	for _, f := range found {
		out = append(out, f...)
	}
	return out
}

func (x *checkup) endpointCheck(ctx context.Context, out *checks, kind, addr, profile string, certificate *imds.Certificate) {
	id := "endpoint." + kind
	tell := func(state, format string, args ...any) *control.Check {
		k := out.add(groupEndpoints, id, state, format, args...)
		k.About = addr
		return k
	}
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		tell(control.CheckSkipped, "%s is no address", addr)
		return
	}
	ip := at.Addr().Unmap()
	if ip.IsUnspecified() {
		ip = netip.IPv6Loopback()
		if at.Addr().Is4() {
			ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	if !ip.IsLoopback() && !onThisMachine(ip) {
		k := tell(control.CheckFailed, "%s is on no interface of this machine any more: programs don't reach the %s endpoint", ip, kind)
		k.Fix = "keyfob link-local enable"
		return
	}
	status, err := knock(ctx, netip.AddrPortFrom(ip, at.Port()), certificate)
	switch {
	case err != nil:
		tell(control.CheckFailed, "the %s endpoint at %s does not answer: %s", kind, addr, err).Hint = "the log of keyfobd says why; keyfob stop, and a new daemon starts"
		return
	case status == http.StatusForbidden:
		tell(control.CheckWarning, "the %s endpoint at %s answers, and refuses a request of this daemon's own", kind, addr).Hint = "keyfob audit says why"
		return
	}
	text := "the " + kind + " endpoint answers at " + addr
	if profile != "" {
		text += " for profile " + profile
	}
	tell(control.CheckOK, "%s", text)
	if profile != "" && !x.set().Has(profile) {
		k := out.add(groupEndpoints, id+".profile", control.CheckFailed, "the %s endpoint at %s hands out profile %s, and there is none", kind, addr, profile)
		k.About, k.Hint = addr, "correct profile of the endpoint in "+x.conf().ConfigFile
	}
}

func onThisMachine(ip netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // nothing is known
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if b, ok := netip.AddrFromSlice(n.IP); ok && b.Unmap() == ip.WithZone("") {
				return true
			}
		}
	}
	return false
}

// knock makes a request that no endpoint grants and every one answers: by its
// own route table, before tokens, rules or the audit log are looked at.
// With a certificate it is made by TLS, and the endpoint must have that one.
func knock(ctx context.Context, at netip.AddrPort, certificate *imds.Certificate) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, endpointLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	host := at.String()
	if certificate != nil {
		secure := tls.Client(conn, &tls.Config{
			InsecureSkipVerify: true, // the certificate itself is compared: whether clients know its authority is theirs to say
			VerifyConnection: func(s tls.ConnectionState) error {
				if !bytes.Equal(s.PeerCertificates[0].Raw, certificate.TLS().Certificate[0]) {
					return errors.New("it shows another certificate than that of the settings")
				}
				return nil
			},
		})
		conn, host = secure, certificate.Names()[0]
		if suffix, ok := strings.CutPrefix(host, "*."); ok {
			host = "keyfob." + suffix
		}
	}
	if _, err := fmt.Fprintf(conn, "DELETE / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	_ = answer.Body.Close()
	return answer.StatusCode, nil
}

// metadataAddresses are what SDKs ask for credentials, and must not ask a
// proxy for.
var metadataAddresses = [...]string{"169.254.169.254", "169.254.170.2", "127.0.0.1"}

// networkPart looks at the way to STS, and at the clock.
func (x *checkup) networkPart(ctx context.Context) (out checks) {
	if proxy, taken := ops.ProxyTakes(x.env, metadataAddresses[:]...); proxy != "" {
		k := out.add(groupNetwork, "proxy.no-proxy", control.CheckWarning, "%s is set in the environment of keyfobd and NO_PROXY does not name %s: programs with that environment ask the proxy for credentials", proxy, joinedText(taken))
		k.About, k.Hint = proxy, "NO_PROXY="+joinedList(x.env, taken)+" where keyfobd gets its environment"
		if x.opt.OnDemand {
			k.Fix, k.Hint = "export NO_PROXY="+shellWord(joinedList(x.env, taken))+"; keyfob stop", ""
		}
	} else {
		out.add(groupNetwork, "proxy.no-proxy", control.CheckOK, "no proxy stands between programs and their metadata addresses")
	}
	if x.p.Offline {
		out.add(groupNetwork, "sts.reachable", control.CheckSkipped, "nothing outside this machine is asked")
		x.clock(&out, time.Duration(x.skew.Load()), x.skew.Load() != 0)
		return out
	}
	client := x.client()
	got, err := x.opsDeps().ReachSTS(ctx, client)
	if err != nil {
		out.failed(groupNetwork, "sts.reachable", err).About = got.URL
	} else {
		through := ""
		if got.Proxy != "" {
			through = ", through the proxy " + got.Proxy
		}
		out.add(groupNetwork, "sts.reachable", control.CheckOK, "STS answers at %s%s", got.URL, through).About = got.URL
	}
	x.clock(&out, got.Skew, got.ClockKnown)
	return out
}

func (x *checkup) clock(out *checks, skew time.Duration, known bool) {
	switch {
	case !known:
		out.add(groupNetwork, "clock", control.CheckSkipped, "AWS's clock is not known")
	case skew.Abs() > time.Minute:
		out.add(groupNetwork, "clock", control.CheckFailed, "%s", skewText(skew)).Hint = "set this machine's clock; until then keyfob counts by AWS's"
	default:
		out.add(groupNetwork, "clock", control.CheckOK, "the clock of this machine agrees with AWS's")
	}
}

// client is the settings that STS is called with: those of the profile that
// was named, else of the usual one.
func (x *checkup) client() profiles.Client {
	q := x.query(x.p.Context)
	if prof, err := x.set().Resolve(q); err == nil && len(prof.Chain) > 0 {
		return prof.Chain[len(prof.Chain)-1].Client
	}
	c := profiles.Client{Region: x.env["AWS_REGION"]}
	if c.Region == "" {
		c.Region = x.env["AWS_DEFAULT_REGION"]
	}
	for service, name := range map[string]string{"": "AWS_ENDPOINT_URL", "sts": "AWS_ENDPOINT_URL_STS"} {
		if u := x.env[name]; u != "" {
			if c.EndpointURL == nil {
				c.EndpointURL = map[string]string{}
			}
			c.EndpointURL[service] = u
		}
	}
	c.CABundle = x.env["AWS_CA_BUNDLE"]
	return c
}

package service

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// cloudMark is how a cloud's machines are known by what their firmware says
// (SMBIOS, under /sys/class/dmi/id). The names are those that cloud-init and
// systemd-detect-virt judge by too.
type cloudMark struct{ file, text, cloud string }

// Laptops say "Google" and "Microsoft Corporation" too (Chromebooks, Surface,
// Hyper-V), so that those clouds are known by the product and the asset tag.
var cloudMarks = []cloudMark{
	{"sys_vendor", "Amazon EC2", "Amazon EC2"},
	{"board_vendor", "Amazon EC2", "Amazon EC2"},
	{"bios_vendor", "Amazon EC2", "Amazon EC2"},
	{"bios_version", "amazon", "Amazon EC2"}, // Xen: 4.11.amazon
	{"product_name", "Google Compute Engine", "Google Cloud"},
	{"chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "Azure"},
	{"product_name", "OpenStack", "OpenStack"},
	{"sys_vendor", "OpenStack Foundation", "OpenStack"},
	{"chassis_asset_tag", "OpenTelekomCloud", "OpenStack"},
	{"sys_vendor", "DigitalOcean", "DigitalOcean"},
	{"sys_vendor", "Hetzner", "Hetzner"},
	{"chassis_asset_tag", "OracleCloud", "Oracle Cloud"},
	{"sys_vendor", "Alibaba", "Alibaba Cloud"},
	{"sys_vendor", "Tencent Cloud", "Tencent Cloud"},
	{"sys_vendor", "Huawei Cloud", "Huawei Cloud"},
	{"sys_vendor", "Exoscale", "Exoscale"},
	{"sys_vendor", "UpCloud", "UpCloud"},
	{"sys_vendor", "Vultr", "Vultr"},
	{"sys_vendor", "Akamai", "Akamai"},
	{"sys_vendor", "Linode", "Akamai"},
	{"sys_vendor", "Scaleway", "Scaleway"},
	{"product_name", "CloudStack", "CloudStack"},
}

// cloudOf is the cloud whose machine this is by its firmware, "" for none
// that is known.
func cloudOf(root string) string {
	facts := firmware(root)
	for _, m := range cloudMarks {
		if strings.Contains(strings.ToLower(facts[m.file]), strings.ToLower(m.text)) {
			return m.cloud
		}
	}
	return ""
}

func cloudError(cloud string) error {
	return fail("programs here have that machine's own role; use --force only if you mean to hide it", "cannot use the metadata address: this is a machine of %s, whose own metadata service has it", cloud)
}

// probeTime is what a metadata service may take to answer: they are one hop
// away.
const probeTime = 400 * time.Millisecond

// azureWire answers on each machine of Azure and nowhere else (the address
// is public, and Microsoft's).
const azureWire = "168.63.129.16:80"

// probe asks whether a metadata service answers at the address, and names
// whose it is: "" if nobody answers. One request carries the headers that
// the clouds want, so that no answer is lost to another's rule.
func probe(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), at netip.Addr) string {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	c, err := dial(ctx, "tcp", netip.AddrPortFrom(at, metadataPort).String())
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * probeTime))
	host := at.String()
	if at.Is6() {
		host = "[" + host + "]"
	}
	request := "PUT /latest/api/token HTTP/1.1\r\nHost: " + host + "\r\nX-aws-ec2-metadata-token-ttl-seconds: 1\r\n" +
		"Metadata-Flavor: Google\r\nMetadata: true\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(c, request); err != nil {
		return "some other service"
	}
	r := bufio.NewReader(io.LimitReader(c, 1<<16))
	for {
		line, err := r.ReadString('\n')
		line = strings.ToLower(strings.TrimSpace(line))
		switch {
		case strings.HasPrefix(line, "x-aws-ec2-metadata-token-ttl-seconds:"), line == "server: ec2ws":
			return "Amazon EC2"
		case strings.HasPrefix(line, "metadata-flavor: google"):
			return "Google Cloud"
		case strings.HasPrefix(line, "server: microsoft-iis"), strings.HasPrefix(line, "server: imds/"):
			return "Azure"
		case err != nil, line == "":
			return "some other service"
		}
	}
}

// notHere returns why this machine must not have the metadata addresses; nil
// where it may. ours says that enable put them here already.
func (l *linkLocal) notHere(ctx context.Context, ours bool) error {
	if cloud := cloudOf(l.c.Root); cloud != "" {
		return cloudError(cloud)
	}
	if ours {
		return nil
	}
	for _, a := range l.addresses() {
		where, err := l.c.interfaceOf(a)
		if err != nil {
			return err
		}
		if where != "" && !isLoopback(where) {
			return fail("ip addr del "+a.String()+"/"+strconv.Itoa(a.BitLen())+" dev "+where+" if nothing needs it there, or --force", "cannot use %s: the interface %s has that address", a, where)
		}
		if where != "" {
			continue // on lo already: it is left there at the end, if it was not made here
		}
		if via := hostRoute(l.c.Root, a); via != "" {
			return fail("a cloud or a VPN sets such a route: its metadata service would be hidden; --force does that", "cannot use %s: this machine has a route to it by %s", a, via)
		}
		if who := probe(ctx, l.c.dial, a); who != "" {
			return fail("it would be hidden from this machine's programs; --force does that", "cannot use %s: %s answers there", a, who)
		}
	}
	if firmware(l.c.Root)["sys_vendor"] == "Microsoft Corporation" {
		dctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		if c, err := l.c.dial(dctx, "tcp", azureWire); err == nil {
			_ = c.Close()
			return cloudError("Azure")
		}
	}
	return l.portFree(ctx)
}

// portFree returns who has the port, if that is nobody who leaves it.
func (l *linkLocal) portFree(ctx context.Context) error {
	mine := 0
	if l.c.System {
		if m, err := New(l.c.Config); err == nil {
			if s, err := m.Status(ctx); err == nil {
				mine = s.PID // it is stopped before the port is taken over
			}
		}
	}
	for _, a := range l.addresses() {
		for _, h := range holders(l.c.Root, a, metadataPort) {
			if h.pid != 0 && h.pid == mine {
				continue
			}
			help := "end it, or have it listen elsewhere"
			where := netip.AddrPortFrom(a, metadataPort).String()
			if h.wildcard {
				where = "port " + strconv.Itoa(metadataPort) + " of every address"
				help = "have it listen at its own addresses in place of all, such as 127.0.0.1:" + strconv.Itoa(metadataPort)
			}
			return fail(help, "cannot use %s: %s listens at %s", netip.AddrPortFrom(a, metadataPort), h, where)
		}
	}
	return nil
}

package service

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// linkLocalWindows is link-local on Windows, where any program may listen at
// port 80 and an address that netsh adds stays over restarts: there is
// nothing but the addresses, and a file that names those that were added.
type linkLocalWindows struct{ c *linkLocal }

func newLinkLocalWindows(l *linkLocal) linkLocalHost { return &linkLocalWindows{c: l} }

func elevated() bool { return windows.GetCurrentProcessToken().IsElevated() }

func (h *linkLocalWindows) standing() (enabled, error) {
	addrs, err := h.c.readMade()
	return enabled{is: len(addrs) > 0, addrs: addrs}, err
}

func (h *linkLocalWindows) active(context.Context) bool {
	addrs, err := h.c.readMade()
	for _, a := range addrs {
		if where, e := interfaceOf(a); e != nil || where == "" {
			return false
		}
	}
	return err == nil && len(addrs) > 0
}

func (h *linkLocalWindows) enable(ctx context.Context, was enabled) (Plan, error) {
	if was.is && h.active(ctx) {
		return Plan{}, nil
	}
	addrs := h.c.addresses()
	words := ""
	for _, a := range addrs {
		words += " " + a.String()
	}
	steps, err := privateDir(filepath.Dir(h.c.made()))
	if err != nil {
		return Plan{}, err
	}
	return Plan{Steps: append(steps, Step{Do: "add" + words + " to the loopback interface (netsh interface add address)", do: func(ctx context.Context) error {
		if err := h.c.up(ctx, addrs); err != nil {
			return err
		}
		// Whether the port can be had is seen by taking it.
		at := netip.AddrPortFrom(addrs[0], metadataPort).String()
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
		if err == nil {
			return l.Close()
		}
		return fail("netsh http show servicestate and netstat -abn tell which; IIS is one", "cannot use %s: another program listens there", at)
	}, undo: func(ctx context.Context) {
		if !was.is {
			_ = h.c.down(ctx)
		}
	}})}, nil
}

func (h *linkLocalWindows) disable(_ context.Context, was enabled) (Plan, error) {
	if !was.is {
		return Plan{}, nil
	}
	return Plan{Steps: []Step{{Do: "take away the addresses that were added to the loopback interface", do: h.c.down}}}, nil
}

// addLoopback adds a to the loopback interface, also for the next start; as
// one that is no source of the machine's own connections.
func addLoopback(ctx context.Context, a netip.Addr) error {
	if a.Is4() {
		return netsh(ctx, "ipv4", "add", a, "mask=255.255.255.255", "skipassource=true")
	}
	return netsh(ctx, "ipv6", "add", a, "skipassource=true")
}

func removeLoopback(ctx context.Context, a netip.Addr) error {
	if where, err := interfaceOf(a); err == nil && where == "" {
		return nil
	}
	if a.Is4() {
		return netsh(ctx, "ipv4", "delete", a)
	}
	return netsh(ctx, "ipv6", "delete", a)
}

func netsh(ctx context.Context, family, verb string, a netip.Addr, more ...string) error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	system, err := windows.GetSystemDirectory()
	if err != nil {
		return err
	}
	name := "interface="
	if family == "ipv4" {
		name = "name="
	}
	argv := append([]string{filepath.Join(system, "netsh.exe"), "interface", family, verb, "address", name + strconv.Itoa(lo.Index), "address=" + a.String()}, more...)
	out, err := command(ctx, argv...)
	if err != nil {
		return commandError(argv, out, err)
	}
	return nil
}

// firmware reads what Windows keeps of it, by the names that Linux gives.
func firmware(string) map[string]string {
	facts := map[string]string{}
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `HARDWARE\DESCRIPTION\System\BIOS`, registry.QUERY_VALUE)
	if err != nil {
		return facts
	}
	defer func() { _ = k.Close() }()
	for name, value := range map[string]string{"sys_vendor": "SystemManufacturer", "product_name": "SystemProductName", "board_vendor": "BaseBoardManufacturer", "bios_vendor": "BIOSVendor", "bios_version": "BIOSVersion"} {
		facts[name], _, _ = k.GetStringValue(value)
	}
	return facts
}

// handedOver: any program may listen there.
func handedOver(netip.AddrPort) net.Listener { return nil }

func (l *linkLocal) runHandOver(context.Context, string, []netip.Addr) error {
	return fail("keyfob link-local enable", "cannot hand over the metadata address: Windows needs no such thing")
}

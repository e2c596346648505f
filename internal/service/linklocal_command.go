package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

const linkLocalUsage = `usage: keyfob link-local enable [--system | --user NAME] [--ipv4-only] [--dry-run] [--force]
       keyfob link-local disable [--dry-run] [--force]
       keyfob link-local status [--json]
`

// linkLocalMain runs `keyfobd service link-local args…`: what people call
// as keyfob link-local, and what its units run (up, down, hand-over).
func linkLocalMain(ctx context.Context, base Config, args []string, stdout, stderr io.Writer) error {
	c := LinkLocalConfig{Config: base}
	var verb string
	var dry, asJSON bool
	var addrs []netip.Addr
	wrong := func(format string, args ...any) error {
		return &UsageError{Text: fmt.Sprintf(format, args...), Help: "keyfob link-local enable|disable|status"}
	}
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		switch {
		case name == "--user":
			if !has {
				if i++; i < len(args) {
					value = args[i]
				}
			}
			if value == "" || strings.HasPrefix(value, "-") {
				return wrong("cannot use --user without a name")
			}
			c.User = value
		case has && strings.HasPrefix(name, "-"):
			return wrong("cannot understand %s", args[i])
		case name == "--system":
			c.System = true
		case name == "--ipv4-only":
			c.IPv4Only = true
		case name == "--force":
			c.Force = true
		case name == "--dry-run":
			dry = true
		case name == "--json":
			asJSON = true
		case name == "--help", name == "-h":
			_, err := io.WriteString(stdout, linkLocalUsage)
			return err
		case strings.HasPrefix(name, "-"):
			return wrong("cannot understand %s", args[i])
		case verb == "":
			verb = args[i]
		default:
			a, err := netip.ParseAddr(args[i])
			if err != nil || !isMetadata(a) || verb != "up" && verb != "hand-over" {
				return wrong("cannot use the argument %q", args[i])
			}
			addrs = append(addrs, a)
		}
	}
	if c.User != "" && c.System {
		return wrong("cannot use --user with --system: one daemon gets the address")
	}
	switch verb {
	case "enable", "disable", "status":
	case "up", "down", "hand-over":
		if verb != "down" && len(addrs) == 0 {
			addrs = append(addrs, netip.MustParseAddr(metadataIPv4))
		}
	case "":
		return wrong("cannot tell what to do with the metadata address")
	default:
		return wrong("cannot do %s with the metadata address", verb)
	}
	l, err := newLinkLocal(c)
	if err != nil {
		return err
	}
	switch verb {
	case "up":
		return l.up(ctx, addrs)
	case "down":
		return l.down(ctx)
	case "hand-over":
		return l.runHandOver(ctx, c.User, addrs)
	case "status":
		s, err := l.status(ctx)
		if err != nil {
			return err
		}
		if !asJSON {
			_, err = io.WriteString(stdout, s.String())
			return err
		}
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s\n", b)
		return err
	}
	given := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == verb })
	plan, none, do := l.planEnable, "the metadata address is enabled", Plan.run
	if verb == "disable" {
		plan, none, do = l.planDisable, "the metadata address is not enabled", Plan.runAll
	}
	p, err := plan(ctx, given)
	if err != nil {
		return err
	}
	return p.offer(dry, none, stdout, stderr, func() error { return do(p, ctx) })
}

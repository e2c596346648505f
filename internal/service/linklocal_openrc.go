package service

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
)

const linkLocalScript = "keyfob-link-local"

// linkLocalOpenRC is link-local under OpenRC: a script that adds the
// addresses. The machine's daemon binds their port itself, by the capability
// that its script gives it; for a person's daemon a supervised process holds
// the sockets and hands them over.
type linkLocalOpenRC struct {
	c *linkLocal
	o openrc
}

func (h *linkLocalOpenRC) script() string { return h.o.c.at("/etc/init.d/" + linkLocalScript) }

func (c Config) linkLocalOpenRCText(addrs []netip.Addr, forUser string, force bool) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	name, up := "openrc-link-local.sh", "up "
	if forUser != "" {
		name, up = "openrc-hand-over.sh", "hand-over --user "+shellWord(forUser)+" "
	}
	if force {
		up += "--force "
	}
	up += strings.Join(words, " ")
	args := "service link-local " + up
	if forUser != "" {
		args = shellWord(args) // supervise-daemon's script evaluates it once more
	}
	return mark(render(name, map[string]string{"KEYFOBD": c.Program, "ARGS": args}), "# ", "", "# keyfob:")
}

func (h *linkLocalOpenRC) standing() (enabled, error) {
	b, err := os.ReadFile(h.script())
	if os.IsNotExist(err) {
		return enabled{}, nil
	}
	if err != nil {
		return enabled{}, fileError("read", h.script(), err)
	}
	e := enabled{is: true}
	e.forUser, e.addrs = wordsOf(string(b))
	e.broken = len(e.addrs) == 0
	return e, nil
}

// wordsOf finds the user and the addresses in the command line of a file
// that enable wrote.
func wordsOf(text string) (forUser string, addrs []netip.Addr) {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n'\"\\<>", r) })
	words = slices.DeleteFunc(words, func(w string) bool { return w == "string" || w == "/string" }) // a plist's tags
	for i, w := range words {
		if w == "--user" && i+1 < len(words) {
			forUser = words[i+1]
		}
		if a, err := netip.ParseAddr(w); err == nil && isMetadata(a) {
			addrs = append(addrs, a)
		}
	}
	return forUser, addrs
}

func (h *linkLocalOpenRC) active(ctx context.Context) bool {
	_, err := command(ctx, "rc-service", linkLocalScript, "status")
	return err == nil
}

func (h *linkLocalOpenRC) isEnabled() bool {
	_, err := os.Lstat(h.o.c.at("/etc/runlevels/default/" + linkLocalScript))
	return err == nil
}

func (h *linkLocalOpenRC) enable(ctx context.Context, was enabled) (Plan, error) {
	if _, err := h.o.files(); err != nil { // a path that a script can't have
		return Plan{}, err
	}
	steps, changed, err := h.o.c.writes([]file{{h.script(), h.o.c.linkLocalOpenRCText(h.c.addresses(), h.c.c.User, h.c.c.Force), 0o755}})
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	works := h.active(ctx)
	if works && len(changed) > 0 {
		p.Steps = append(p.Steps, h.o.step("rc-service", "--quiet", linkLocalScript, "stop"))
	}
	p.Steps = append(p.Steps, steps...)
	if !h.isEnabled() {
		st := h.o.step("rc-update", "add", linkLocalScript, "default")
		st.back = [][]string{{"rc-update", "delete", linkLocalScript, "default"}}
		p.Steps = append(p.Steps, st)
	}
	if !works || len(changed) > 0 {
		st := h.o.step("rc-service", "--quiet", linkLocalScript, "start")
		st.back = [][]string{{"rc-service", "--quiet", linkLocalScript, "stop"}}
		p.Steps = append(p.Steps, st)
	}
	return p, nil
}

func (h *linkLocalOpenRC) disable(ctx context.Context, was enabled) (Plan, error) {
	removals, notes, err := h.o.c.removals([]file{{path: h.script()}})
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Notes: notes}
	if len(removals) > 0 {
		p.Steps = h.takeAway(ctx, removals)
	}
	return p, nil
}

func (h *linkLocalOpenRC) takeAway(ctx context.Context, removals []Step) (steps []Step) {
	if h.active(ctx) {
		steps = append(steps, h.o.step("rc-service", "--quiet", linkLocalScript, "stop"))
	}
	if h.isEnabled() {
		steps = append(steps, h.o.step("rc-update", "delete", linkLocalScript, "default"))
	}
	return append(steps, removals...)
}

// leaving returns the steps that take link-local away where it is there for
// the machine's daemon, which is uninstalled.
func (h *linkLocalOpenRC) leaving(ctx context.Context) ([]Step, error) {
	was, err := h.standing()
	if err != nil || !was.is || was.forUser != "" {
		return nil, err
	}
	removals, _, err := h.o.c.removals([]file{{path: h.script()}})
	if err != nil || len(removals) == 0 {
		return nil, err
	}
	return h.takeAway(ctx, removals), nil
}

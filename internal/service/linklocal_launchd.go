package service

import (
	"context"
	"net/netip"
	"os"
	"strings"
)

// linkLocalLabel is link-local's name in launchd.
const linkLocalLabel = "org.keyfob.link-local"

// linkLocalLaunchd is link-local on macOS: a daemon of launchd that adds
// aliases to lo0. The machine's keyfobd binds their port itself; for a
// person's the daemon stays, holds the sockets as nobody and hands them
// over. launchd's own sockets can be had by its C library alone, which a
// build without cgo does not have.
type linkLocalLaunchd struct {
	c *linkLocal
	l launchd
}

func (h *linkLocalLaunchd) path() string {
	return h.l.c.at("/Library/LaunchDaemons/" + linkLocalLabel + ".plist")
}

func (h *linkLocalLaunchd) target() string { return "system/" + linkLocalLabel }

func (c Config) linkLocalPlist(addrs []netip.Addr, forUser string, force bool) string {
	words := []string{c.Program, "service", "link-local", "up"}
	if forUser != "" {
		words = []string{c.Program, "service", "link-local", "hand-over", "--user", forUser}
	}
	if force {
		words = append(words, "--force")
	}
	for _, a := range addrs {
		words = append(words, a.String())
	}
	var args strings.Builder
	for _, w := range words {
		args.WriteString("\t\t<string>" + xmlText(w) + "</string>\n")
	}
	text := render("launchd.plist", map[string]string{"LABEL": linkLocalLabel, "ARGS": args.String(), "ENV": "", "LOG": "/Library/Logs/keyfob-link-local.log"})
	return mark(text, "<!-- ", " -->", "<plist ")
}

func (h *linkLocalLaunchd) standing() (enabled, error) {
	b, err := os.ReadFile(h.path())
	if os.IsNotExist(err) {
		return enabled{}, nil
	}
	if err != nil {
		return enabled{}, fileError("read", h.path(), err)
	}
	e := enabled{is: true}
	e.forUser, e.addrs = wordsOf(string(b))
	e.broken = len(e.addrs) == 0
	return e, nil
}

// active: the aliases are there, and for a person's keyfobd the process.
func (h *linkLocalLaunchd) active(ctx context.Context) bool {
	out, err := command(ctx, "launchctl", "print", h.target())
	if err != nil {
		return false
	}
	was, err := h.standing()
	if err != nil || was.forUser != "" && !launchdPID.MatchString(out) {
		return false
	}
	for _, a := range was.addrs {
		if where, err := interfaceOf(a); err != nil || where == "" {
			return false
		}
	}
	return true
}

func (h *linkLocalLaunchd) loaded(ctx context.Context) bool {
	_, err := command(ctx, "launchctl", "print", h.target())
	return err == nil
}

func (h *linkLocalLaunchd) enable(ctx context.Context, was enabled) (Plan, error) {
	steps, changed, err := h.l.c.writes([]file{{h.path(), h.l.c.linkLocalPlist(h.c.addresses(), h.c.c.User, h.c.c.Force), 0o644}})
	if err != nil {
		return Plan{}, err
	}
	if len(changed) == 0 && h.active(ctx) {
		return Plan{}, nil
	}
	p := Plan{Steps: steps}
	if h.loaded(ctx) {
		p.Steps = append(p.Steps, h.l.step("bootout", h.target()))
	}
	boot := h.l.step("bootstrap", "system", h.path())
	boot.back = [][]string{{"launchctl", "bootout", h.target()}}
	p.Steps = append(p.Steps, h.l.step("enable", h.target()), boot)
	return p, nil
}

func (h *linkLocalLaunchd) disable(ctx context.Context, was enabled) (Plan, error) {
	removals, notes, err := h.l.c.removals([]file{{path: h.path()}})
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Notes: notes}
	if len(removals) == 0 {
		return p, nil
	}
	if h.loaded(ctx) {
		p.Steps = append(p.Steps, h.l.step("bootout", h.target()))
	}
	// What holds the sockets is nobody, and could not take them away.
	p.Steps = append(p.Steps, Step{Do: "take away the addresses that were added to lo0", do: h.c.down})
	p.Steps = append(p.Steps, removals...)
	return p, nil
}

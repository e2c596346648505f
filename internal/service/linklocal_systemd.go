package service

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	addressUnit    = "keyfob-link-local.service"
	imdsSocketUnit = "keyfob-imds.socket"
	handOverUnit   = "keyfob-imds.service"
)

// handOverSocket is where a user's daemon asks.
const handOverSocket = "/run/keyfob-imds/hand-over.sock"

// linkLocalSystemd is link-local under systemd: a unit for the addresses, a
// socket at their port, and where a person's own daemon gets it, a unit that
// hands it over: systemd gives sockets of the machine to no unit of a user.
type linkLocalSystemd struct {
	c *linkLocal
	s systemd
}

func (h *linkLocalSystemd) path(unit string) string {
	return h.s.c.at(filepath.Join("/etc/systemd/system", unit))
}

// subcommand is a line that runs keyfobd service link-local.
func (c Config) linkLocalLine(args ...string) string {
	words := []string{unitWord(c.Program), "service", "link-local"}
	for _, a := range args {
		words = append(words, unitArg(a))
	}
	return strings.Join(words, " ")
}

func (c Config) linkLocalUnitText(addrs []netip.Addr, force bool) string {
	args := []string{"up"}
	if force {
		args = append(args, "--force")
	}
	for _, a := range addrs {
		args = append(args, a.String())
	}
	return render("systemd-link-local.service", map[string]string{"EXEC": c.linkLocalLine(args...), "EXECSTOP": c.linkLocalLine("down")})
}

// imdsSocketText is the text of the socket, for the machine's daemon or that
// of a user.
func (c Config) imdsSocketText(addrs []netip.Addr, forUser string) string {
	var listen strings.Builder
	for _, a := range addrs {
		listen.WriteString("ListenStream=" + netip.AddrPortFrom(a, metadataPort).String() + "\n")
	}
	whose := "Service=" + serviceUnit + "\n"
	if forUser != "" {
		listen.WriteString("ListenStream=" + handOverSocket + "\n")
		whose = "Service=" + handOverUnit + "\nSocketUser=" + forUser + "\nSocketMode=0600\nDirectoryMode=0755\nRemoveOnStop=yes\n"
	}
	return render("systemd-imds.socket", map[string]string{"LISTEN": listen.String(), "WHOSE": whose})
}

func (c Config) handOverText(forUser string) string {
	return render("systemd-imds.service", map[string]string{"EXEC": c.linkLocalLine("hand-over", "--user", forUser)})
}

func (h *linkLocalSystemd) files() []file {
	addrs := h.c.addresses()
	all := []file{
		{h.path(addressUnit), marked(h.s.c.linkLocalUnitText(addrs, h.c.c.Force)), 0o644},
		{h.path(imdsSocketUnit), marked(h.s.c.imdsSocketText(addrs, h.c.c.User)), 0o644},
	}
	if h.c.c.User != "" {
		all = append(all, file{h.path(handOverUnit), marked(h.s.c.handOverText(h.c.c.User)), 0o644})
	}
	return all
}

// standing reads what was enabled from the socket's file.
func (h *linkLocalSystemd) standing() (enabled, error) {
	var e enabled
	there := 0
	for _, unit := range []string{addressUnit, imdsSocketUnit, handOverUnit} {
		b, err := os.ReadFile(h.path(unit))
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			return e, fileError("read", h.path(unit), err)
		}
		there++
		if unit != imdsSocketUnit {
			continue
		}
		e.is = true
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			if u, ok := strings.CutPrefix(line, "SocketUser="); ok {
				e.forUser = u
			}
			if s, ok := strings.CutPrefix(line, "ListenStream="); ok {
				if a, err := netip.ParseAddrPort(s); err == nil {
					e.addrs = append(e.addrs, a.Addr())
				}
			}
		}
	}
	want := 2
	if e.forUser != "" {
		want = 3
	}
	e.is = e.is || there > 0
	e.broken = there > 0 && (there != want || len(e.addrs) == 0)
	return e, nil
}

func (h *linkLocalSystemd) active(ctx context.Context) bool {
	u, err := h.s.show(ctx, imdsSocketUnit)
	a, err2 := h.s.show(ctx, addressUnit)
	return err == nil && err2 == nil && u["ActiveState"] == "active" && a["ActiveState"] == "active"
}

// step is systemctl, whose failures here are those of link-local's units.
func (h *linkLocalSystemd) step(args ...string) Step {
	argv := h.s.systemctl(args...)
	return Step{Run: argv, explain: func(out string, err error) error {
		for _, unit := range []string{addressUnit, imdsSocketUnit, handOverUnit} {
			if strings.Contains(out, unit) && strings.Contains(out, "masked") {
				return maskedError(unit)
			}
		}
		if strings.Contains(out, "Job ") {
			return fail("journalctl -n 20 -u "+addressUnit+" -u "+imdsSocketUnit+" -u "+handOverUnit+" tells why", "cannot %s: %s", strings.Join(argv[1:], " "), lastLine(out))
		}
		return h.s.explain(argv, out, err)
	}}
}

func (h *linkLocalSystemd) enable(ctx context.Context, was enabled) (Plan, error) {
	files := h.files()
	for _, f := range files {
		if is, err := look(f.path, f.content); err == nil && is == masked {
			return Plan{}, maskedError(f.path)
		}
	}
	steps, changed, err := h.s.c.writes(files)
	if err != nil {
		return Plan{}, err
	}
	address, err := h.s.show(ctx, addressUnit)
	if err != nil {
		return Plan{}, err
	}
	socket, err := h.s.show(ctx, imdsSocketUnit)
	if err != nil {
		return Plan{}, err
	}
	for _, u := range []unitState{address, socket} {
		if u["LoadState"] == "masked" {
			return Plan{}, maskedError(u["Id"])
		}
	}
	daemon, err := h.s.show(ctx, serviceUnit)
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	mine := []string{imdsSocketUnit}
	if h.c.c.User != "" {
		mine = append(mine, handOverUnit)
	}
	stale := len(changed) > 0 || address["NeedDaemonReload"] == "yes" || socket["NeedDaemonReload"] == "yes"
	works := active(address) && active(socket)
	if h.c.c.User != "" && works {
		u, err := h.s.show(ctx, handOverUnit)
		if err != nil {
			return Plan{}, err
		}
		works = active(u) && !h.s.runsOther(u)
	}
	if !stale && works && isEnabled(address) && isEnabled(socket) {
		return p, nil
	}
	// The machine's daemon gets sockets at its start alone, and none is
	// opened while it runs.
	again := active(daemon) && (h.c.c.User == "" || was.is && was.forUser == "")
	if again {
		stop := h.step("stop", socketUnit, serviceUnit)
		stop.back = [][]string{h.s.systemctl("start", socketUnit, serviceUnit)}
		p.Steps = append(p.Steps, stop)
	}
	if was.is {
		old := h.step("stop", imdsSocketUnit, handOverUnit)
		old.optional = true
		p.Steps = append(p.Steps, old)
	}
	p.Steps = append(p.Steps, steps...)
	if h.c.c.User == "" {
		removals, _, err := h.s.c.removals([]file{{path: h.path(handOverUnit)}})
		if err != nil {
			return Plan{}, err
		}
		p.Steps = append(p.Steps, removals...)
	}
	p.Steps = append(p.Steps, h.s.step("daemon-reload"))
	p.undo = append(p.undo, h.s.step("daemon-reload"))
	on := h.step("reenable", addressUnit, imdsSocketUnit)
	if !was.is {
		on.back = [][]string{h.s.systemctl("disable", addressUnit, imdsSocketUnit)}
	}
	restart := h.step("restart", addressUnit)
	start := h.step(append([]string{"start"}, mine...)...)
	restart.back = [][]string{h.s.systemctl("stop", addressUnit)}
	start.back = [][]string{h.s.systemctl(append([]string{"stop"}, mine...)...), h.s.systemctl("reset-failed", addressUnit, imdsSocketUnit)}
	p.Steps = append(p.Steps, on, restart, start)
	if again {
		p.Steps = append(p.Steps, h.step("start", socketUnit, serviceUnit))
	}
	return p, nil
}

func (h *linkLocalSystemd) disable(ctx context.Context, was enabled) (Plan, error) {
	files := []file{{path: h.path(imdsSocketUnit)}, {path: h.path(handOverUnit)}, {path: h.path(addressUnit)}}
	removals, notes, err := h.s.c.removals(files)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Notes: notes}
	if !was.is || len(removals) == 0 {
		return p, nil
	}
	daemon, err := h.s.show(ctx, serviceUnit)
	if err != nil {
		return Plan{}, err
	}
	again := active(daemon) && was.forUser == ""
	if again {
		p.Steps = append(p.Steps, h.step("stop", socketUnit, serviceUnit))
	}
	p.Steps = append(p.Steps, h.takeAway(removals)...)
	if again {
		p.Steps = append(p.Steps, h.step("start", socketUnit, serviceUnit))
	}
	return p, nil
}

// takeAway stops link-local's units and removes their files.
func (h *linkLocalSystemd) takeAway(removals []Step) []Step {
	units := slices.DeleteFunc([]string{imdsSocketUnit, handOverUnit, addressUnit}, func(u string) bool {
		_, err := os.Lstat(h.path(u))
		return err != nil
	})
	stop := h.step(append([]string{"stop"}, units...)...)
	off := h.step(append([]string{"disable"}, slices.DeleteFunc(slices.Clone(units), func(u string) bool { return u == handOverUnit })...)...)
	off.optional = true // what a half-done enable left may not be enabled
	clear := h.s.step("reset-failed", addressUnit, imdsSocketUnit, handOverUnit)
	clear.optional = true
	return append(append([]Step{stop, off}, removals...), h.s.step("daemon-reload"), clear)
}

// leaving returns the steps that take link-local away where it is there for
// the machine's daemon, which goes.
func (h *linkLocalSystemd) leaving() ([]Step, error) {
	was, err := h.standing()
	if err != nil || !was.is || was.forUser != "" {
		return nil, err
	}
	removals, _, err := h.s.c.removals([]file{{path: h.path(imdsSocketUnit)}, {path: h.path(handOverUnit)}, {path: h.path(addressUnit)}})
	if err != nil || len(removals) == 0 {
		return nil, err
	}
	return h.takeAway(removals), nil
}

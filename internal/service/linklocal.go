package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"keyfob/internal/atomicfile"
	"keyfob/internal/settings"
)

// The addresses of EC2's metadata service, where SDKs look without being
// told, and its port.
const (
	metadataIPv4 = "169.254.169.254"
	metadataIPv6 = "fd00:ec2::254"
	metadataPort = 80
)

// LinkLocalConfig says who gets the metadata addresses of this machine.
type LinkLocalConfig struct {
	Config // System: the machine's daemon gets them
	// User is whose own daemon gets them; "" with System false is whoever
	// ran sudo, or the machine's daemon where that is installed.
	User string
	// IPv4Only leaves fd00:ec2::254 out.
	IPv4Only bool

	// dial asks whether a metadata service answers, and interfaceOf which
	// interface has an address; nil is the network.
	dial        func(ctx context.Context, network, address string) (net.Conn, error)
	interfaceOf func(netip.Addr) (string, error)
}

// linkLocal puts the metadata addresses on the loopback interface and sees
// to it that the daemon gets port 80 there without a privilege of its own.
type linkLocal struct {
	c    LinkLocalConfig
	host linkLocalHost
}

// linkLocalHost is what differs by platform.
type linkLocalHost interface {
	// standing is what was enabled here before.
	standing() (enabled, error)
	// enable and disable make plans; the checks are done.
	enable(context.Context, enabled) (Plan, error)
	disable(context.Context, enabled) (Plan, error)
	// active reports whether the addresses are held by what enable made.
	active(context.Context) bool
}

// enabled is what the files of an enable say; the zero value is nothing.
type enabled struct {
	is      bool
	broken  bool   // a half-done enable left it
	forUser string // "" is the machine's daemon
	addrs   []netip.Addr
}

func (e enabled) whose() string {
	if e.forUser != "" {
		return "the keyfobd of " + e.forUser
	}
	return "the machine's keyfobd"
}

func newLinkLocal(c LinkLocalConfig) (*linkLocal, error) {
	system := c.System
	c.System = true // the machine's addresses, whoever gets them
	m, err := New(c.Config)
	if err != nil {
		return nil, err
	}
	c.Config = m.c
	c.System = system
	if c.dial == nil {
		c.dial = (&net.Dialer{}).DialContext
	}
	if c.interfaceOf == nil {
		c.interfaceOf = interfaceOf
	}
	l := &linkLocal{c: c}
	sys := c.Config
	sys.System = true
	switch c.Platform {
	case "systemd":
		l.host = &linkLocalSystemd{c: l, s: systemd{c: sys}}
	case "openrc":
		l.host = &linkLocalOpenRC{c: l, o: openrc{c: sys}}
	case "launchd":
		l.host = &linkLocalLaunchd{c: l, l: launchd{c: sys}}
	default:
		l.host = newLinkLocalWindows(l)
	}
	return l, nil
}

// privilege names the whole command that would be permitted.
func (l *linkLocal) privilege(verb string, args []string) error {
	if runtime.GOOS == "windows" {
		if elevated() {
			return nil
		}
		return fail("run it as an administrator: keyfob link-local "+strings.Join(append([]string{verb}, args...), " "),
			"cannot %s the metadata address: Windows does not permit it", verb)
	}
	if l.c.UID == 0 || l.c.Root != "" {
		return nil
	}
	words := append([]string{"sudo", l.command(), "link-local", verb}, args...)
	return fail(strings.Join(words, " "), "cannot %s the metadata address: that takes root", verb)
}

// command is keyfob as sudo finds it, which looks in few directories.
func (l *linkLocal) command() string {
	switch dir := filepath.Dir(l.c.Program); dir {
	case "/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/usr/local/sbin", "/sbin":
		return "keyfob"
	default:
		return filepath.Join(dir, "keyfob")
	}
}

// choose decides whose daemon gets the addresses.
func (l *linkLocal) choose(ctx context.Context) (forUser string, err error) {
	if l.c.User != "" && l.c.System {
		return "", &UsageError{Text: "cannot use --user with --system: one daemon gets the address"}
	}
	name := l.c.User
	if name == "" && !l.c.System {
		m := Manager{c: l.c.Config}
		m.c.System = true
		if m, err := New(m.c); err == nil {
			if s, err := m.Status(ctx); err == nil && s.Installed && (s.Enabled || s.Running) {
				return "", nil
			}
		}
		if name = l.c.Getenv("SUDO_USER"); name == "" || name == "root" {
			return "", fail("--user NAME for a person's own keyfobd, or keyfob service install --system first", "cannot tell whose keyfobd is to get the metadata address")
		}
	}
	if name == "" {
		return "", nil
	}
	u, err := findUser(name)
	if err != nil {
		return "", fail("a user's name, as in getent passwd", "cannot give the metadata address to %s: there is no such user", name)
	}
	// A directory's names may hold what units and scripts would have to
	// quote each in its own way; the number is the same user.
	if strings.ContainsFunc(u.Username, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", r)
	}) {
		return u.Uid, nil
	}
	return u.Username, nil
}

// findUser finds a user by name or number.
func findUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	return u, err
}

// addresses are those that this machine can have.
func (l *linkLocal) addresses() []netip.Addr {
	all := []netip.Addr{netip.MustParseAddr(metadataIPv4)}
	if !l.c.IPv4Only && hasIPv6() {
		all = append(all, netip.MustParseAddr(metadataIPv6))
	}
	return all
}

// hasIPv6 reports whether the loopback interface speaks IPv6.
func hasIPv6() bool {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// planEnable judges the machine and returns what enable would do; an empty
// plan means that it is as it should be.
func (l *linkLocal) planEnable(ctx context.Context, args []string) (Plan, error) {
	if err := l.privilege("enable", args); err != nil {
		return Plan{}, err
	}
	forUser, err := l.choose(ctx)
	if err != nil {
		return Plan{}, err
	}
	l.c.User, l.c.System = forUser, forUser == ""
	if l.c.System && l.c.Platform != "windows" {
		m, err := New(l.c.Config)
		if err != nil {
			return Plan{}, err
		}
		if s, err := m.Status(ctx); err == nil && !s.Installed {
			return Plan{}, fail("sudo keyfob service install --system, or --user NAME for a person's own keyfobd", "cannot give the metadata address to the machine's keyfobd: it is not installed")
		}
	}
	was, err := l.host.standing()
	if err != nil {
		return Plan{}, err
	}
	ours := was.is && l.host.active(ctx)
	if !l.c.Force {
		if err := l.notHere(ctx, ours); err != nil {
			return Plan{}, err
		}
	}
	p, err := l.host.enable(ctx, was)
	if err != nil || p.Empty() {
		return p, err
	}
	switch {
	case l.c.User != "":
		p.Notes = append(p.Notes, fmt.Sprintf("%s's keyfobd takes it with [[endpoint]] kind = \"imds\", listen = \"%s\", profile = \"…\" in their config.toml, and keyfob reload", l.c.User, l.endpoint(0)))
	case l.listening() == "":
		p.Notes = append(p.Notes, fmt.Sprintf("keyfobd takes it with [[endpoint]] kind = \"imds\", listen = \"%s\", profile = \"…\" in its config.toml, and keyfob service restart --system", l.endpoint(0)))
	}
	return p, nil
}

// endpoint is the i-th address with its port.
func (l *linkLocal) endpoint(i int) string {
	return netip.AddrPortFrom(l.addresses()[i], metadataPort).String()
}

// planDisable returns what disable would do: it takes away what enable made
// and nothing else.
func (l *linkLocal) planDisable(ctx context.Context, args []string) (Plan, error) {
	if err := l.privilege("disable", args); err != nil {
		return Plan{}, err
	}
	was, err := l.host.standing()
	if err != nil {
		return Plan{}, err
	}
	if was.is && was.forUser == "" && !l.c.Force && l.c.Platform != "windows" {
		l.c.System = true
		if at := l.listening(); at != "" {
			return Plan{}, fail("take that [[endpoint]] out and run keyfob reload first, or --force",
				"cannot disable the metadata address: %s still has an endpoint there, and keyfobd would not start again", at)
		}
	}
	return l.host.disable(ctx, was)
}

// listening is the file of the system daemon's settings if they have an
// endpoint at a metadata address, "" if not or if they can't be read.
func (l *linkLocal) listening() string {
	env := map[string]string{}
	for _, e := range Environ(true, nil) {
		k, v, _ := strings.Cut(e, "=")
		if k == "XDG_CONFIG_HOME" {
			v = l.c.at(v)
		}
		env[k] = v
	}
	s, err := settings.Load(settings.Flags{}, func(name string) string { return env[name] })
	if err != nil {
		return ""
	}
	for _, e := range s.Endpoints {
		if a, err := netip.ParseAddrPort(e.Listen); err == nil && isMetadata(a.Addr()) {
			return s.ConfigFile
		}
	}
	return ""
}

func isMetadata(a netip.Addr) bool {
	return a == netip.MustParseAddr(metadataIPv4) || a == netip.MustParseAddr(metadataIPv6)
}

// LinkLocalStatus is how the metadata addresses stand on this machine.
type LinkLocalStatus struct {
	Platform  string             `json:"platform"`
	Enabled   bool               `json:"enabled"`
	Active    bool               `json:"active"`         // the addresses are up, by what enable made
	System    bool               `json:"system"`         // for the machine's daemon
	User      string             `json:"user,omitempty"` // or for this one's
	Addresses []LinkLocalAddress `json:"addresses"`
	Cloud     string             `json:"cloud,omitempty"` // whose machine this is
	Problem   string             `json:"problem,omitempty"`
	Hint      string             `json:"hint,omitempty"`
}

// LinkLocalAddress is one of them.
type LinkLocalAddress struct {
	Address   string   `json:"address"`
	Interface string   `json:"interface,omitempty"` // that has it
	Listening []string `json:"listening"`           // programs at its port, where they can be seen
}

func (l *linkLocal) status(ctx context.Context) (LinkLocalStatus, error) {
	was, err := l.host.standing()
	if err != nil {
		return LinkLocalStatus{}, err
	}
	s := LinkLocalStatus{Platform: l.c.Platform, Enabled: was.is, Active: was.is && l.host.active(ctx), System: was.is && was.forUser == "", User: was.forUser, Cloud: cloudOf(l.c.Root)}
	addrs := was.addrs
	if len(addrs) == 0 {
		addrs = l.addresses()
	}
	for _, a := range addrs {
		x := LinkLocalAddress{Address: a.String(), Listening: []string{}}
		x.Interface, err = l.c.interfaceOf(a)
		if err != nil {
			return s, err
		}
		for _, h := range holders(l.c.Root, a, metadataPort) {
			if name := h.String(); !slices.Contains(x.Listening, name) {
				x.Listening = append(x.Listening, name)
			}
		}
		s.Addresses = append(s.Addresses, x)
	}
	line := "sudo " + l.command() + " link-local enable"
	if runtime.GOOS == "windows" {
		line = "keyfob link-local enable, as an administrator,"
	}
	switch {
	case was.broken:
		s.Problem, s.Hint = "it was enabled by half", line+" mends it"
	case s.Enabled && !s.Active:
		s.Problem, s.Hint = "it is enabled and does not work", line+" mends it"
	case !s.Enabled && s.Cloud != "":
		s.Hint = "this is a machine of " + s.Cloud + ", whose own metadata service the address belongs to"
	case !s.Enabled:
		s.Hint = line + " has it here"
	}
	return s, nil
}

// String is the status for people, one fact a line.
func (s LinkLocalStatus) String() string {
	var b strings.Builder
	state := "disabled"
	switch {
	case s.Active:
		state = "enabled, for " + enabled{forUser: s.User}.whose()
	case s.Enabled:
		state = "enabled, and not active"
	}
	fmt.Fprintf(&b, "link-local: %s\n", state)
	for _, a := range s.Addresses {
		where := "not on this machine"
		if a.Interface != "" {
			where = "on " + a.Interface
		}
		if len(a.Listening) > 0 {
			where += fmt.Sprintf(", port %d: %s", metadataPort, strings.Join(a.Listening, ", "))
		}
		fmt.Fprintf(&b, "address:    %s %s\n", a.Address, where)
	}
	for _, l := range []struct{ name, text string }{{"cloud:      ", s.Cloud}, {"problem:    ", s.Problem}, {"hint:       ", s.Hint}} {
		if l.text != "" {
			b.WriteString(l.name + l.text + "\n")
		}
	}
	return b.String()
}

// runtimeState is the directory that the units' programs share until the
// next boot, as the addresses are there until the next boot.
const runtimeState = "/run/keyfob-link-local"

// made is the file that names the addresses that up added, one a line.
func (l *linkLocal) made() string {
	switch runtime.GOOS {
	case "windows": // kept for as long as the addresses are: over restarts
		return filepath.Join(l.c.Getenv("ProgramData"), "keyfob", "link-local-made")
	case "darwin":
		return l.c.at("/var" + runtimeState + "/made")
	}
	return l.c.at(runtimeState + "/made")
}

// up adds the addresses that are missing, and notes which: down takes away
// no other. It is what runs at each boot, also in an image that was copied
// to a cloud since it was enabled, so it looks where it is.
func (l *linkLocal) up(ctx context.Context, addrs []netip.Addr) error {
	if cloud := cloudOf(l.c.Root); cloud != "" && !l.c.Force {
		return cloudError(cloud)
	}
	before, err := l.readMade()
	if err != nil {
		return err
	}
	noted := before
	for _, a := range addrs {
		where, err := l.c.interfaceOf(a)
		if err != nil {
			return err
		}
		if where != "" {
			continue
		}
		// Noted first: one that is noted and missing does no harm.
		if !slices.Contains(noted, a) {
			noted = append(noted, a)
			if err := l.writeMade(noted); err != nil {
				return err
			}
		}
		if err := addLoopback(ctx, a); err != nil {
			for _, b := range noted {
				if !slices.Contains(before, b) {
					_ = removeLoopback(ctx, b)
				}
			}
			_ = l.writeMade(before)
			return fail("run it as root", "cannot add %s to the loopback interface: %w", a, err)
		}
	}
	return nil
}

// down takes away what up added.
func (l *linkLocal) down(ctx context.Context) error {
	addrs, err := l.readMade()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if e := removeLoopback(ctx, a); e != nil {
			err = errors.Join(err, fail("run it as root", "cannot take %s from the loopback interface: %w", a, e))
		}
	}
	if err != nil {
		return err
	}
	return l.writeMade(nil)
}

func (l *linkLocal) readMade() ([]netip.Addr, error) {
	b, err := os.ReadFile(l.made())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fileError("read", l.made(), err)
	}
	var all []netip.Addr
	for _, line := range strings.Fields(string(b)) {
		if a, err := netip.ParseAddr(line); err == nil {
			all = append(all, a)
		}
	}
	return all, nil
}

func (l *linkLocal) writeMade(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		err := os.Remove(l.made())
		_ = os.Remove(filepath.Dir(l.made())) // a unit's runtime directory stays, which does no harm
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fileError("remove", l.made(), err)
		}
		return nil
	}
	var b strings.Builder
	for _, a := range addrs {
		b.WriteString(a.String() + "\n")
	}
	if _, err := makeDirs(filepath.Dir(l.made())); err != nil {
		return fileError("write", l.made(), err)
	}
	if err := atomicfile.Write(l.made(), []byte(b.String()), atomicfile.Options{Mode: 0o644}); err != nil {
		return fileError("write", l.made(), err)
	}
	return nil
}

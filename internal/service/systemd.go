package service

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	serviceUnit = Name + ".service"
	socketUnit  = Name + ".socket"
)

// systemd is the host of systemd's units, the machine's or a user's.
type systemd struct{ c Config }

// dir is where an administrator's or a user's own units stand.
func (s *systemd) dir() (string, error) {
	if s.c.System {
		return s.c.at("/etc/systemd/system"), nil
	}
	if x := s.c.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(x) {
		return s.c.at(filepath.Join(x, "systemd", "user")), nil
	}
	home, err := s.c.home()
	return s.c.at(filepath.Join(home, ".config", "systemd", "user")), err
}

// packaged reports whether a package brought a unit that runs this program.
func (s *systemd) packaged() bool {
	if len(s.c.Args)+len(s.c.Env) > 0 || s.c.Socket != "" {
		return false
	}
	dirs := []string{"/usr/lib/systemd/user", "/lib/systemd/user", "/etc/systemd/user"}
	if s.c.System {
		dirs = []string{"/usr/lib/systemd/system", "/lib/systemd/system"}
	}
	for _, d := range dirs {
		b, err := os.ReadFile(s.c.at(filepath.Join(d, serviceUnit)))
		if err != nil {
			continue
		}
		_, err = os.Stat(s.c.at(filepath.Join(d, socketUnit)))
		return err == nil && strings.Contains(string(b), "\nExecStart="+unitWord(s.c.Program)+" ")
	}
	return false
}

// unitText is the text of keyfob.service.
func (c Config) unitText() string {
	words := []string{unitWord(c.Program)}
	for _, a := range c.args() {
		words = append(words, unitArg(a))
	}
	name := "systemd-user.service"
	if c.System {
		name = "systemd-system.service"
	}
	text := render(name, map[string]string{
		"EXEC":           strings.Join(words, " "),
		"KEYFOBD":        unitWord(c.Program),
		"KEYFOB_KEYRING": unitWord(c.keyring()),
	})
	var env strings.Builder
	for _, e := range c.Env {
		env.WriteString("Environment=" + unitWord(e) + "\n")
	}
	return strings.Replace(text, "UMask=0077\n", "UMask=0077\n"+env.String(), 1)
}

// socketText is the text of keyfob.socket.
func (c Config) socketText() string {
	name, path := "systemd-user.socket", "%t/keyfob/keyfob.sock"
	if c.System {
		name, path = "systemd-system.socket", "/run/keyfob/keyfob.sock"
	}
	if c.Socket != "" {
		path = unitPath(c.Socket)
	}
	return render(name, map[string]string{"SOCKET": path})
}

func marked(text string) string { return mark(text, "# ", "", "") }

// files are all that install writes; without the units where a package
// brought them.
func (s *systemd) files() ([]file, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	// systemd.service(5) does not say so, but these are refused even when quoted.
	if strings.ContainsAny(s.c.Program, "\"'\\") {
		return nil, fail("install it in another directory", "cannot write %s into a unit: systemd takes no program with a quote or a backslash in its path", s.c.Program)
	}
	var all []file
	if !s.packaged() {
		all = append(all,
			file{filepath.Join(dir, serviceUnit), marked(s.c.unitText()), 0o644},
			file{filepath.Join(dir, socketUnit), marked(s.c.socketText()), 0o644})
	}
	if !s.c.System {
		path := s.pathDropIn(dir)
		// A quoted directory would have to be read back; nobody has one.
		if p := richer(installedPath(path, unitPathLine), searchPath(s.c.Path)); p != "" && !strings.ContainsAny(p, "\"\\") {
			all = append(all, file{path, marked("# Where the daemon finds programs: the PATH of who installed it.\n[Service]\nEnvironment=" + unitWord("PATH="+p) + "\n"), 0o644})
		}
		return all, nil
	}
	if _, err := os.Stat(s.c.at("/usr/lib/sysusers.d/keyfob.conf")); err != nil {
		all = append(all, file{s.sysusers(), marked(render("sysusers.conf", nil)), 0o644})
	}
	if s.c.PassphraseCredential != "" {
		all = append(all, file{s.dropIn(dir), marked(render("systemd-passphrase.conf", map[string]string{"CREDENTIAL": unitPath(s.c.PassphraseCredential)})), 0o644})
	}
	return all, nil
}

func (s *systemd) sysusers() string { return s.c.at("/etc/sysusers.d/keyfob.conf") }

func (s *systemd) pathDropIn(dir string) string {
	return filepath.Join(dir, serviceUnit+".d", "path.conf")
}

func (s *systemd) dropIn(dir string) string {
	return filepath.Join(dir, serviceUnit+".d", "passphrase.conf")
}

func (s *systemd) systemctl(args ...string) []string {
	argv := []string{"systemctl"}
	if !s.c.System {
		argv = append(argv, "--user")
	}
	return append(argv, args...)
}

func (s *systemd) step(args ...string) Step {
	argv := s.systemctl(args...)
	return Step{Run: argv, explain: func(out string, err error) error { return s.explain(argv, out, err) }}
}

func (s *systemd) install(ctx context.Context) (Plan, error) {
	files, err := s.files()
	if err != nil {
		return Plan{}, err
	}
	for _, f := range files { // the one failure that systemctl show does not tell
		if is, err := look(f.path, f.content); err == nil && is == masked {
			return Plan{}, maskedError(f.path)
		}
	}
	service, err := s.show(ctx, serviceUnit)
	if err != nil {
		return Plan{}, err
	}
	socket, err := s.show(ctx, socketUnit)
	if err != nil {
		return Plan{}, err
	}
	for _, u := range []unitState{service, socket} {
		if u["LoadState"] == "masked" {
			return Plan{}, maskedError(u["Id"])
		}
	}
	var p Plan
	steps, changed, err := s.c.writes(files)
	if err != nil {
		return Plan{}, err
	}
	p.Steps = steps
	if s.c.System && (changed[s.sysusers()] || !userExists(s.c)) {
		argv := []string{"systemd-sysusers", "keyfob.conf"}
		p.Steps = append(p.Steps, Step{Run: argv})
	}
	reload := len(changed) > 0 || service["NeedDaemonReload"] == "yes" || socket["NeedDaemonReload"] == "yes"
	if reload {
		p.Steps = append(p.Steps, s.step("daemon-reload"))
		p.undo = append(p.undo, s.step("daemon-reload"))
	}
	if !isEnabled(service) || !isEnabled(socket) || changedUnit(changed) {
		st := s.step("enable", serviceUnit, socketUnit)
		if !isEnabled(service) || !isEnabled(socket) {
			st.back = [][]string{s.systemctl("disable", serviceUnit, socketUnit)}
		} else {
			st = s.step("reenable", serviceUnit, socketUnit) // its [Install] may be another
		}
		p.Steps = append(p.Steps, st)
	}
	running := service["ActiveState"] == "active" || service["ActiveState"] == "activating"
	switch {
	case !running:
		if s.c.MakeRoom != nil {
			p.Steps = append(p.Steps, Step{Do: "end a daemon that runs already", do: s.c.MakeRoom})
		}
		start := s.step("start", socketUnit, serviceUnit)
		start.back = [][]string{s.systemctl("stop", socketUnit, serviceUnit), s.systemctl("reset-failed", socketUnit, serviceUnit)}
		if service["ActiveState"] == "failed" || socket["ActiveState"] == "failed" {
			clear := s.step("reset-failed", serviceUnit, socketUnit)
			clear.optional = true
			p.Steps = append(p.Steps, clear)
		}
		p.Steps = append(p.Steps, start)
	case changedPath(changed, socketUnit) || socket["ActiveState"] != "active":
		p.Steps = append(p.Steps, s.step("stop", serviceUnit, socketUnit), s.step("start", socketUnit, serviceUnit))
		p.undo = append(p.undo, s.step("stop", serviceUnit, socketUnit), s.step("start", socketUnit, serviceUnit))
	case reload || s.runsOther(service):
		p.Steps = append(p.Steps, s.step("restart", serviceUnit))
		if reload {
			p.undo = append(p.undo, s.step("restart", serviceUnit))
		}
	}
	if !p.Empty() && !s.c.System && !s.lingers() {
		p.Notes = append(p.Notes, "it runs while you are logged in; to let it run always: loginctl enable-linger")
	}
	return p, nil
}

func changedUnit(changed map[string]bool) bool {
	return changedPath(changed, serviceUnit) || changedPath(changed, socketUnit)
}

func changedPath(changed map[string]bool, name string) bool {
	for p := range changed {
		if filepath.Base(p) == name {
			return true
		}
	}
	return false
}

// runsOther reports whether the running daemon is not the program that
// stands at its path: it was replaced since.
func (s *systemd) runsOther(u unitState) bool {
	pid, _ := strconv.Atoi(u["MainPID"])
	if exe, err := os.Readlink(s.c.at(fmt.Sprintf("/proc/%d/exe", pid))); err == nil {
		return exe != s.c.Program
	}
	// A daemon that keeps its memory from its own user keeps that too; then
	// the file tells, by the time at which it came to its place.
	began, err := strconv.ParseInt(u["ExecMainStartTimestampMonotonic"], 10, 64)
	if err != nil || began <= 0 || pid == 0 {
		return false
	}
	placed, ok := placedAt(s.c.at(s.c.Program))
	return ok && time.Since(placed) < time.Duration(monotonicMicros()-began)*time.Microsecond
}

func (s *systemd) uninstall(ctx context.Context) (Plan, error) {
	files, err := s.uninstallFiles()
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	removals, notes, err := s.c.removals(files)
	if err != nil {
		return Plan{}, err
	}
	if dir, err := s.dir(); err == nil {
		// The drop-in's directory was made for it; with others' in it, it stays.
		if _, err := os.Stat(filepath.Dir(s.dropIn(dir))); err == nil && len(removals) > 0 {
			removals = append(removals, Step{Remove: filepath.Dir(s.dropIn(dir))})
		}
	}
	service, err := s.show(ctx, serviceUnit)
	switch {
	case err != nil:
		// Nobody answers: what an install left is removed all the same.
		p.Notes = append(p.Notes, "systemd was not told: "+err.Error())
		dir, _ := s.dir()
		for _, link := range []string{"default.target.wants/" + serviceUnit, "multi-user.target.wants/" + serviceUnit, "sockets.target.wants/" + socketUnit} {
			path := filepath.Join(dir, link)
			if to, err := os.Readlink(path); err == nil && filepath.Dir(to) == dir {
				p.Steps = append(p.Steps, Step{Remove: path})
			}
		}
		p.Steps = append(p.Steps, removals...)
	case service["LoadState"] == "masked":
		return Plan{}, maskedError(serviceUnit)
	case service["LoadState"] == "not-found" && len(removals) == 0:
	default:
		socket, err := s.show(ctx, socketUnit)
		if err != nil {
			return Plan{}, err
		}
		if active(service) || active(socket) {
			p.Steps = append(p.Steps, s.step("stop", socketUnit, serviceUnit))
		}
		if s.c.System {
			steps, err := (&linkLocalSystemd{s: *s}).leaving()
			if err != nil {
				return Plan{}, err
			}
			p.Steps = append(p.Steps, steps...)
		}
		if isEnabled(service) || isEnabled(socket) {
			p.Steps = append(p.Steps, s.step("disable", serviceUnit, socketUnit))
		}
		p.Steps = append(p.Steps, removals...)
		if len(removals) > 0 {
			p.Steps = append(p.Steps, s.step("daemon-reload"))
		}
		if service["ActiveState"] == "failed" {
			st := s.step("reset-failed", serviceUnit)
			st.optional = true
			p.Steps = append(p.Steps, st)
		}
	}
	p.Notes = append(p.Notes, notes...)
	return p, nil
}

// uninstallFiles are all that any install can have written.
func (s *systemd) uninstallFiles() ([]file, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	files := []file{{path: filepath.Join(dir, socketUnit), content: marked(s.c.socketText())}, {path: filepath.Join(dir, serviceUnit), content: marked(s.c.unitText())}}
	if !s.c.System {
		files = append(files, file{path: s.pathDropIn(dir)})
	}
	if s.c.System {
		files = append(files, file{path: s.dropIn(dir)}, file{path: s.sysusers(), content: marked(render("sysusers.conf", nil))})
	}
	return files, nil
}

func (s *systemd) control(ctx context.Context, verb string) error {
	u, err := s.show(ctx, serviceUnit)
	if err != nil {
		return err
	}
	switch u["LoadState"] {
	case "masked":
		return maskedError(serviceUnit)
	case "not-found":
		return s.notInstalled(verb)
	}
	steps := []Step{s.step("start", socketUnit, serviceUnit)}
	switch verb {
	case "stop": // the socket too, or the next caller would start the daemon
		steps = []Step{s.step("stop", socketUnit, serviceUnit)}
	case "restart":
		steps = []Step{s.step("restart", serviceUnit)}
	case "start":
		if s.c.MakeRoom != nil && !active(u) {
			steps = append([]Step{{Do: "end a daemon that runs already", do: s.c.MakeRoom}}, steps...)
		}
	}
	return Plan{Steps: steps}.run(ctx)
}

func (c Config) flag() string {
	if c.System {
		return " --system"
	}
	return ""
}

func (s *systemd) notInstalled(verb string) error {
	return fail("keyfob service install"+s.c.flag(), "cannot %s the service: it is not installed", verb)
}

func (s *systemd) status(ctx context.Context) (Status, error) {
	u, err := s.show(ctx, serviceUnit)
	if err != nil {
		return Status{}, err
	}
	st := Status{
		Installed: u["LoadState"] != "not-found" && u["LoadState"] != "masked",
		Enabled:   isEnabled(u),
		Running:   u["ActiveState"] == "active",
		State:     u["ActiveState"] + " (" + u["SubState"] + ")",
		File:      u["FragmentPath"],
		Text:      u["StatusText"],
	}
	st.PID, _ = strconv.Atoi(u["MainPID"])
	switch {
	case u["LoadState"] == "masked":
		st.Problem, st.Hint = "it is masked", "systemctl "+strings.TrimSpace(s.userFlag()+" unmask ")+" "+serviceUnit+" "+socketUnit
	case !st.Installed:
		st.State, st.Hint = "not installed", "keyfob service install"+s.c.flag()
	case u["LoadState"] != "loaded":
		st.Problem, st.Hint = "its unit can't be read: "+u["LoadState"], "keyfob service install"+s.c.flag()+" mends it"
	case u["ActiveState"] == "failed":
		st.Problem, st.Hint = "it failed: "+u["Result"], "keyfob service logs"+s.c.flag()
	case !st.Enabled:
		st.Problem, st.Hint = "it does not start by itself", "keyfob service install"+s.c.flag()
	case u["NeedDaemonReload"] == "yes":
		st.Problem, st.Hint = "its unit has changed since it was loaded", "keyfob service install"+s.c.flag()
	}
	return st, nil
}

func (s *systemd) userFlag() string {
	if s.c.System {
		return ""
	}
	return "--user"
}

// logs lets journalctl write. A user's daemon is found by --user-unit, which
// also knows journals that are not split by user.
func (s *systemd) logs(ctx context.Context, w io.Writer, o LogOptions) error {
	argv := []string{"journalctl", "--no-pager", "--lines=" + strconv.Itoa(o.Lines), "--output=short-iso"}
	if s.c.System {
		argv = append(argv, "--unit="+serviceUnit)
	} else {
		argv = append(argv, "--user-unit="+serviceUnit)
	}
	if o.Follow {
		argv = append(argv, "--follow")
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var complaint strings.Builder
	cmd.Stdout, cmd.Stderr = w, &complaint
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return commandError(argv, complaint.String(), err)
	}
	return nil
}

package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// launchd is the host of macOS: an agent of the user, or a daemon.
type launchd struct{ c Config }

func (l *launchd) plist() (string, error) {
	if l.c.System {
		return l.c.at("/Library/LaunchDaemons/" + Label + ".plist"), nil
	}
	home, err := l.c.home()
	return l.c.at(filepath.Join(home, "Library", "LaunchAgents", Label+".plist")), err
}

func (c Config) launchdLog() (string, error) {
	if c.System {
		return "/Library/Logs/keyfobd.log", nil
	}
	home, err := c.home()
	return filepath.Join(home, "Library", "Logs", "keyfobd.log"), err
}

// launchdText is the text of the plist.
func (c Config) launchdText() (string, error) {
	log, err := c.launchdLog()
	if err != nil {
		return "", err
	}
	var args, env strings.Builder
	for _, a := range append([]string{c.Program}, c.args()...) {
		args.WriteString("\t\t<string>" + xmlText(a) + "</string>\n")
	}
	if len(c.Env) > 0 {
		env.WriteString("\t<key>EnvironmentVariables</key>\n\t<dict>\n")
		for _, e := range c.Env {
			k, v, _ := strings.Cut(e, "=")
			env.WriteString("\t\t<key>" + xmlText(k) + "</key>\n\t\t<string>" + xmlText(v) + "</string>\n")
		}
		env.WriteString("\t</dict>\n")
	}
	text := render("launchd.plist", map[string]string{"LABEL": Label, "ARGS": args.String(), "ENV": env.String(), "LOG": xmlText(log)})
	return mark(text, "<!-- ", " -->", "<plist "), nil
}

// domain is where the service lives (launchctl(1)).
func (l *launchd) domain() string {
	if l.c.System {
		return "system"
	}
	return "gui/" + strconv.Itoa(l.c.UID)
}

func (l *launchd) target() string { return l.domain() + "/" + Label }

func (l *launchd) step(args ...string) Step {
	argv := append([]string{"launchctl"}, args...)
	return Step{Run: argv, explain: func(out string, err error) error { return l.explain(argv, out, err) }}
}

func (l *launchd) explain(argv []string, out string, err error) error {
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fail("", "cannot use launchd: there is no launchctl")
	case strings.Contains(out, "Domain does not support"), strings.Contains(out, "Could not find domain"):
		return fail("log in at the screen once; keyfob starts a daemon by itself until then", "cannot reach launchd's domain %s: that user is not logged in at the screen", l.domain())
	case strings.Contains(out, "Operation not permitted"), strings.Contains(out, "Not privileged"), strings.Contains(out, "Permission denied"):
		return fail("run it with sudo", "cannot run %s: it takes root", strings.Join(argv, " "))
	}
	return commandError(argv, out, err)
}

// launchdState is what launchctl print says of the service.
type launchdState struct {
	loaded, running bool
	pid             int
	state, exit     string
}

var (
	launchdPID   = regexp.MustCompile(`(?m)^\tpid = (\d+)$`)
	launchdWord  = regexp.MustCompile(`(?m)^\tstate = (.+)$`)
	launchdCode  = regexp.MustCompile(`(?m)^\tlast exit code = (.+)$`)
	launchdOff   = regexp.MustCompile(`"` + regexp.QuoteMeta(Label) + `" => (true|disabled)`)
	notInLaunchd = []string{"Could not find service", "Bad request"}
)

func (l *launchd) show(ctx context.Context) (launchdState, error) {
	argv := []string{"launchctl", "print", l.target()}
	out, err := command(ctx, argv...)
	if err != nil {
		for _, w := range notInLaunchd {
			if strings.Contains(out, w) {
				return launchdState{}, nil
			}
		}
		return launchdState{}, l.explain(argv, out, err)
	}
	s := launchdState{loaded: true}
	if m := launchdPID.FindStringSubmatch(out); m != nil {
		s.pid, _ = strconv.Atoi(m[1])
	}
	if m := launchdWord.FindStringSubmatch(out); m != nil {
		s.state = m[1]
	}
	if m := launchdCode.FindStringSubmatch(out); m != nil {
		s.exit = m[1]
	}
	s.running = s.pid > 0
	return s, nil
}

func (l *launchd) install(ctx context.Context) (Plan, error) {
	path, err := l.plist()
	if err != nil {
		return Plan{}, err
	}
	c := l.c
	if p := richer(installedPath(path, plistPathLine), searchPath(c.Path)); p != "" && !c.System {
		c.Env = append(slices.Clone(c.Env), "PATH="+p)
	}
	text, err := c.launchdText()
	if err != nil {
		return Plan{}, err
	}
	steps, changed, err := l.c.writes([]file{{path, text, 0o644}})
	if err != nil {
		return Plan{}, err
	}
	s, err := l.show(ctx)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Steps: steps}
	boot := l.step("bootstrap", l.domain(), path)
	boot.back = [][]string{{"launchctl", "bootout", l.target()}}
	switch {
	case s.loaded && len(changed) > 0:
		p.Steps = append(p.Steps, l.step("bootout", l.target()), boot)
		p.undo = append(p.undo, l.step("bootstrap", l.domain(), path))
	case !s.loaded:
		if l.c.MakeRoom != nil {
			p.Steps = append(p.Steps, Step{Do: "end a daemon that runs already", do: l.c.MakeRoom})
		}
		p.Steps = append(p.Steps, l.step("enable", l.target()), boot)
	case !s.running:
		p.Steps = append(p.Steps, l.step("kickstart", l.target()))
	}
	return p, nil
}

func (l *launchd) uninstall(ctx context.Context) (Plan, error) {
	path, err := l.plist()
	if err != nil {
		return Plan{}, err
	}
	text, err := l.c.launchdText()
	if err != nil {
		return Plan{}, err
	}
	removals, notes, err := l.c.removals([]file{{path: path, content: text}})
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Notes: notes}
	if len(removals) == 0 {
		return p, nil
	}
	if s, err := l.show(ctx); err == nil && s.loaded {
		p.Steps = append(p.Steps, l.step("bootout", l.target()))
	} else if err != nil {
		p.Notes = append(p.Notes, "launchd was not told: "+err.Error())
	}
	p.Steps = append(p.Steps, removals...)
	return p, nil
}

func (l *launchd) control(ctx context.Context, verb string) error {
	path, err := l.plist()
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fail("keyfob service install"+l.c.flag(), "cannot %s the service: it is not installed", verb)
	}
	s, err := l.show(ctx)
	if err != nil {
		return err
	}
	var p Plan
	switch {
	case verb == "stop" && s.loaded: // loaded, it would be started again
		p.Steps = append(p.Steps, l.step("bootout", l.target()))
	case verb == "stop":
	case !s.loaded:
		if l.c.MakeRoom != nil {
			p.Steps = append(p.Steps, Step{Do: "end a daemon that runs already", do: l.c.MakeRoom})
		}
		p.Steps = append(p.Steps, l.step("bootstrap", l.domain(), path))
	case verb == "restart":
		p.Steps = append(p.Steps, l.step("kickstart", "-k", l.target()))
	case !s.running:
		p.Steps = append(p.Steps, l.step("kickstart", l.target()))
	}
	return p.run(ctx)
}

func (l *launchd) status(ctx context.Context) (Status, error) {
	path, err := l.plist()
	if err != nil {
		return Status{}, err
	}
	if _, err := os.Stat(path); err != nil {
		return Status{State: "not installed", Hint: "keyfob service install" + l.c.flag()}, nil
	}
	s, err := l.show(ctx)
	if err != nil {
		return Status{}, err
	}
	st := Status{Installed: true, Enabled: s.loaded, Running: s.running, PID: s.pid, State: s.state, File: path}
	if out, err := command(ctx, "launchctl", "print-disabled", l.domain()); err == nil && launchdOff.MatchString(out) {
		st.Enabled = false
		st.Problem, st.Hint = "it is disabled", "launchctl enable "+l.target()
	}
	switch {
	case !s.loaded:
		st.State = "stopped"
	case !s.running && s.exit != "" && s.exit != "0" && s.exit != "(never exited)":
		st.Problem, st.Hint = fmt.Sprintf("it ended with code %s", s.exit), "keyfob service logs"+l.c.flag()
	}
	return st, nil
}

func (l *launchd) logs(ctx context.Context, w io.Writer, o LogOptions) error {
	path, err := l.c.launchdLog()
	if err != nil {
		return err
	}
	return tail(ctx, w, l.c.at(path), o)
}

package service

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
)

// openrc is the host of OpenRC, which has services of the machine alone.
type openrc struct{ c Config }

const openrcLog = "/var/log/keyfob/keyfobd.log"

func (o *openrc) script() string { return o.c.at("/etc/init.d/" + Name) }

// openrcText is the text of the script.
func (c Config) openrcText() string {
	var words []string
	for _, a := range c.args() {
		words = append(words, shellWord(a))
	}
	text := render("openrc.sh", map[string]string{
		"KEYFOBD": c.Program,
		// supervise-daemon's script evaluates the value once more.
		"ARGS": shellWord(strings.Join(words, " ")),
	})
	for _, e := range c.Env {
		k, v, _ := strings.Cut(e, "=")
		text = strings.Replace(text, "\ndepend() {", "\nexport "+k+"="+shellWord(v)+"\n\ndepend() {", 1)
	}
	return mark(text, "# ", "", "# keyfob, the machine's daemon.")
}

func (o *openrc) files() ([]file, error) {
	// The path is evaluated twice, between double quotes.
	if strings.ContainsAny(o.c.Program, "\"$`\\'") {
		return nil, fail("install it in another directory", "cannot write %q into an OpenRC script", o.c.Program)
	}
	return []file{{o.script(), o.c.openrcText(), 0o755}}, nil
}

func (o *openrc) step(argv ...string) Step {
	return Step{Run: argv, explain: func(out string, err error) error { return o.explain(argv, out, err) }}
}

func (o *openrc) explain(argv []string, out string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fail("keyfob starts a daemon by itself when it needs one", "cannot use OpenRC: there is no %s", argv[0])
	}
	if strings.Contains(out, "superuser access required") || strings.Contains(out, "Permission denied") {
		return fail("run it with sudo", "cannot run %s: it takes root", strings.Join(argv, " "))
	}
	if strings.Contains(out, "failed to start") {
		return fail("keyfob service logs --system tells why", "cannot start the service: the daemon does not start")
	}
	return commandError(argv, out, err)
}

func (o *openrc) install(ctx context.Context) (Plan, error) {
	files, err := o.files()
	if err != nil {
		return Plan{}, err
	}
	steps, changed, err := o.c.writes(files)
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	if !userExists(o.c) {
		if _, err := exec.LookPath("useradd"); err == nil {
			p.Steps = append(p.Steps, o.step("useradd", "--system", "--user-group", "--home-dir", "/var/lib/keyfob", "--no-create-home", "--shell", "/sbin/nologin", SystemUser))
		} else { // busybox
			p.Steps = append(p.Steps, o.step("addgroup", "-S", SystemUser),
				o.step("adduser", "-S", "-D", "-H", "-h", "/var/lib/keyfob", "-s", "/sbin/nologin", "-G", SystemUser, SystemUser))
		}
	}
	p.Steps = append(p.Steps, steps...)
	if !o.enabled() {
		st := o.step("rc-update", "add", Name, "default")
		st.back = [][]string{{"rc-update", "delete", Name, "default"}}
		p.Steps = append(p.Steps, st)
	}
	running := o.running(ctx)
	switch {
	case running && len(changed) > 0:
		p.Steps = append(p.Steps, o.step("rc-service", Name, "restart"))
	case !running:
		if o.c.MakeRoom != nil {
			p.Steps = append(p.Steps, Step{Do: "end a daemon that runs already", do: o.c.MakeRoom})
		}
		st := o.step("rc-service", Name, "start")
		st.back = [][]string{{"rc-service", Name, "stop"}}
		p.Steps = append(p.Steps, st)
	}
	return p, nil
}

func (o *openrc) enabled() bool {
	_, err := os.Lstat(o.c.at("/etc/runlevels/default/" + Name))
	return err == nil
}

// running asks rc-service, whose exit code is 0 for a started service.
func (o *openrc) running(ctx context.Context) bool {
	if _, err := os.Stat(o.script()); err != nil {
		return false
	}
	_, err := command(ctx, "rc-service", Name, "status")
	return err == nil
}

func (o *openrc) uninstall(ctx context.Context) (Plan, error) {
	removals, notes, err := o.c.removals([]file{{path: o.script(), content: o.c.openrcText()}})
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Notes: notes}
	if len(removals) == 0 {
		return p, nil
	}
	if o.running(ctx) {
		p.Steps = append(p.Steps, o.step("rc-service", Name, "stop"))
	}
	if o.enabled() {
		p.Steps = append(p.Steps, o.step("rc-update", "delete", Name, "default"))
	}
	p.Steps = append(p.Steps, removals...)
	return p, nil
}

func (o *openrc) control(ctx context.Context, verb string) error {
	if _, err := os.Stat(o.script()); err != nil {
		return fail("keyfob service install --system", "cannot %s the service: it is not installed", verb)
	}
	return Plan{Steps: []Step{o.step("rc-service", Name, verb)}}.run(ctx)
}

func (o *openrc) status(ctx context.Context) (Status, error) {
	var s Status
	if _, err := os.Stat(o.script()); err != nil {
		return Status{State: "not installed", Hint: "keyfob service install --system"}, nil
	}
	s.Installed, s.Enabled, s.File = true, o.enabled(), o.script()
	out, err := command(ctx, "rc-service", Name, "status")
	if errors.Is(err, exec.ErrNotFound) {
		return s, o.explain([]string{"rc-service"}, out, err)
	}
	s.Running = err == nil
	s.State = lastLine(out)
	if strings.Contains(out, "crashed") {
		s.Problem, s.Hint = "it failed", "keyfob service logs --system"
	}
	return s, nil
}

func (o *openrc) logs(ctx context.Context, w io.Writer, l LogOptions) error {
	return tail(ctx, w, o.c.at(openrcLog), l)
}

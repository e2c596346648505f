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

// A package's script is not one of ours: its files come and go with it.
const openrcPackaged = "# Brought by a package, which alone changes and removes it."

// openrcText is the text of the script that install writes.
func (c Config) openrcText() string {
	return mark(c.openrcPlain(), "# ", "", "# keyfob, the machine's daemon.")
}

// openrcPackageText is the text of the script that a package brings.
func (c Config) openrcPackageText() string {
	return strings.Replace(c.openrcPlain(), "\n", "\n"+openrcPackaged+"\n", 1)
}

func (c Config) openrcPlain() string {
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
	return text
}

// packaged reports whether a package brought a script that runs this program.
func (o *openrc) packaged() bool {
	if len(o.c.Args)+len(o.c.Env) > 0 {
		return false
	}
	b, err := os.ReadFile(o.script())
	return err == nil && strings.Contains(string(b), "\n"+openrcPackaged+"\n") && strings.Contains(string(b), "\ncommand=\""+o.c.Program+"\"\n")
}

// files are all that install writes: none where a package brought the script.
func (o *openrc) files() ([]file, error) {
	// The path is evaluated twice, once between double quotes.
	if strings.ContainsAny(o.c.Program, "\"$`\\' \t") {
		return nil, fail("install it in another directory", "cannot write %q into an OpenRC script", o.c.Program)
	}
	if o.packaged() {
		return nil, nil
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
	// OpenRC says "ERROR: keyfob failed to start" last, and before it why.
	if why := openrcError(out); why != "" {
		return fail("keyfob service logs --system tells more", "cannot finish %s: %s", strings.Join(argv, " "), why)
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
	case running && (len(changed) > 0 || o.runsOther(ctx)):
		p.Steps = append(p.Steps, o.restart("restart")...)
		if len(changed) > 0 { // of the old script, which the undoing brings back
			p.undo = append(p.undo, o.step("rc-service", "--quiet", Name, "restart"))
		}
	case !running:
		if o.c.MakeRoom != nil {
			p.Steps = append(p.Steps, Step{Do: "end a daemon that runs already", do: o.c.MakeRoom})
		}
		steps := o.restart("start")
		steps[0].back = [][]string{{"rc-service", "--quiet", Name, "stop"}}
		p.Steps = append(p.Steps, steps...)
	}
	return p, nil
}

// restart are the steps that start or restart, and wait until the daemon
// answers: OpenRC calls a service started as soon as there is a process.
func (o *openrc) restart(verb string) []Step {
	log := o.c.at(openrcLog)
	var size int64
	if st, err := os.Stat(log); err == nil {
		size = st.Size()
	}
	return []Step{o.step("rc-service", "--quiet", Name, verb), {Do: "wait until it answers", do: func(ctx context.Context) error {
		return o.awaitReady(ctx, log, size)
	}}}
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
	var p Plan
	var removals []Step
	packaged := o.packaged()
	if !packaged {
		var err error
		if removals, p.Notes, err = o.c.removals([]file{{path: o.script(), content: o.c.openrcText()}}); err != nil || len(removals) == 0 {
			return p, err
		}
	}
	if o.running(ctx) {
		p.Steps = append(p.Steps, o.step("rc-service", "--quiet", Name, "stop"))
	}
	leaving, err := (&linkLocalOpenRC{o: *o}).leaving(ctx)
	if err != nil {
		return Plan{}, err
	}
	p.Steps = append(p.Steps, leaving...)
	if o.enabled() {
		p.Steps = append(p.Steps, o.step("rc-update", "delete", Name, "default"))
	}
	p.Steps = append(p.Steps, removals...)
	if packaged && !p.Empty() {
		p.Notes = append(p.Notes, o.script()+" belongs to a package and stays with it")
	}
	return p, nil
}

func (o *openrc) control(ctx context.Context, verb string) error {
	if _, err := os.Stat(o.script()); err != nil {
		return fail("keyfob service install --system", "cannot %s the service: it is not installed", verb)
	}
	if verb == "stop" {
		return Plan{Steps: []Step{o.step("rc-service", "--quiet", Name, verb)}}.run(ctx)
	}
	return Plan{Steps: o.restart(verb)}.run(ctx)
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
	s.State = strings.TrimPrefix(strings.TrimLeft(lastLine(out), "* "), "status: ")
	if s.Running = err == nil; s.Running {
		s.PID, _ = answering(ctx, o.socket())
	}
	switch {
	case strings.Contains(out, "crashed"):
		s.Problem, s.Hint = "it failed", "keyfob service logs --system"
	case s.Running && s.PID == 0: // its supervisor runs, and starts it again and again
		s.Problem, s.Hint = "it does not answer", "keyfob service logs --system"
	case !s.Enabled:
		s.Problem, s.Hint = "it does not start by itself", "keyfob service install --system"
	}
	return s, nil
}

func (o *openrc) logs(ctx context.Context, w io.Writer, l LogOptions) error {
	return tail(ctx, w, o.c.at(openrcLog), l)
}

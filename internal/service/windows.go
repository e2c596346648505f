//go:build windows

package service

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	kardianos "github.com/kardianos/service"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"

	"keyfob/internal/logging"
	"keyfob/internal/winacl"
)

const systemText = "keyfob: AWS credentials for the users of this machine"

// newWindows returns the service control manager for the machine, and the
// task scheduler for a user.
func newWindows(c Config) host {
	if c.System {
		return &scm{c: c}
	}
	return &logonTask{c: c}
}

// scm is a service of Windows, through kardianos/service.
type scm struct{ c Config }

// parameters are the service's: it starts at boot as LocalSystem and is
// started again when it fails, which the library does not do by itself.
func (s *scm) parameters() *kardianos.Config {
	return &kardianos.Config{
		Name: Name, DisplayName: "keyfob", Description: systemText,
		Executable: s.c.Program, Arguments: s.c.args(),
		Option: kardianos.KeyValue{
			"StartType": "automatic", "OnFailure": "restart", "OnFailureDelayDuration": "1s", "OnFailureResetPeriod": 60,
		},
	}
}

func (s *scm) service() (kardianos.Service, error) {
	k, err := kardianos.New(nil, s.parameters())
	if err != nil {
		return nil, s.explain("use", err)
	}
	return k, nil
}

func (s *scm) explain(verb string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return fail("run it as an administrator", "cannot %s the service: Windows does not permit it", verb)
	case errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST), errors.Is(err, kardianos.ErrNotInstalled):
		return fail("keyfob service install --system", "cannot %s the service: it is not installed", verb)
	case errors.Is(err, windows.ERROR_SERVICE_MARKED_FOR_DELETE):
		return fail("close the Services window, or restart the machine", "cannot %s the service: it is being removed", verb)
	case errors.Is(err, windows.ERROR_SERVICE_DISABLED):
		return fail("sc config keyfob start= auto", "cannot %s the service: it is disabled", verb)
	}
	help := ""
	if verb == "start" || verb == "restart" {
		help = "keyfob service logs --system tells why"
	}
	return fail(help, "cannot %s the service: %w", verb, err)
}

// commandLine is how the service control manager keeps program and arguments.
func (s *scm) commandLine() string {
	words := []string{windows.EscapeArg(s.c.Program)}
	for _, a := range s.c.args() {
		words = append(words, windows.EscapeArg(a))
	}
	return strings.Join(words, " ")
}

// current returns the installed service's settings; nil where there is none.
func (s *scm) current() (*mgr.Config, svc.State, error) {
	h, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return nil, 0, s.explain("look at", err)
	}
	m := &mgr.Mgr{Handle: h}
	defer func() { _ = m.Disconnect() }()
	name, err := windows.UTF16PtrFromString(Name)
	if err != nil {
		return nil, 0, err
	}
	sh, err := windows.OpenService(m.Handle, name, windows.SERVICE_QUERY_CONFIG|windows.SERVICE_QUERY_STATUS)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, s.explain("look at", err)
	}
	o := &mgr.Service{Handle: sh, Name: Name}
	defer func() { _ = o.Close() }()
	conf, err := startConfig(sh)
	if err != nil {
		return nil, 0, s.explain("look at", err)
	}
	st, err := o.Query()
	if err != nil {
		return nil, 0, s.explain("look at", err)
	}
	return conf, st.State, nil
}

// startConfig asks only for what is looked at: how the service starts. The
// rest, which package mgr asks for too, not every system tells.
func startConfig(h windows.Handle) (*mgr.Config, error) {
	for size := uint32(1024); ; {
		b := make([]byte, size)
		q := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&b[0]))
		err := windows.QueryServiceConfig(h, q, size, &size)
		if errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) && size > uint32(len(b)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &mgr.Config{StartType: q.StartType, BinaryPathName: windows.UTF16PtrToString(q.BinaryPathName)}, nil
	}
}

// change opens the service with all rights and lets f change it.
func (s *scm) change(verb string, f func(*mgr.Service) error) error {
	m, err := mgr.Connect()
	if err != nil {
		return s.explain(verb, err)
	}
	defer func() { _ = m.Disconnect() }()
	o, err := m.OpenService(Name)
	if err != nil {
		return s.explain(verb, err)
	}
	defer func() { _ = o.Close() }()
	return s.explain(verb, f(o))
}

func (s *scm) install(context.Context) (Plan, error) {
	conf, state, err := s.current()
	if err != nil {
		return Plan{}, err
	}
	k, err := s.service()
	if err != nil {
		return Plan{}, err
	}
	log := WindowsLog(true, s.c.Getenv)
	steps, err := privateDir(filepath.Dir(log))
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Steps: steps}
	start := Step{Do: "start the service " + Name, do: func(context.Context) error { return s.explain("start", k.Start()) }}
	switch {
	case conf == nil:
		make := Step{Do: "make the service " + Name + ": " + s.commandLine(), do: func(context.Context) error {
			if err := k.Install(); err != nil {
				return s.explain("install", err)
			}
			// A daemon that ends with an error has not crashed, to Windows.
			return s.change("install", func(o *mgr.Service) error {
				err := o.SetRecoveryActionsOnNonCrashFailures(true)
				if errors.Is(err, windows.ERROR_INVALID_LEVEL) { // a system that has no such thing
					return nil
				}
				return err
			})
		}}
		make.undo = func(context.Context) { _ = s.remove(k) } // it may be there in spite of a failure
		p.Steps = append(p.Steps, make)
		p.Notes = append(p.Notes, "keyfob service logs --system shows "+log+"; warnings and errors stand in the Application log too, under the source "+logging.EventSource)
	case conf.BinaryPathName != s.commandLine() || conf.StartType != mgr.StartAutomatic:
		p.Steps = append(p.Steps, Step{Do: "change the service " + Name + ": " + s.commandLine(), do: func(context.Context) error {
			return s.change("change", func(o *mgr.Service) error {
				c, err := o.Config()
				if err != nil {
					return err
				}
				c.BinaryPathName, c.StartType, c.Description = s.commandLine(), mgr.StartAutomatic, systemText
				return o.UpdateConfig(c)
			})
		}})
		if state != svc.Stopped {
			p.Steps = append(p.Steps, source()...)
			p.Steps = append(p.Steps, Step{Do: "restart the service " + Name, do: func(context.Context) error { return s.explain("restart", k.Restart()) }})
			return p, nil
		}
	}
	if conf != nil {
		p.Steps = append(p.Steps, source()...)
	}
	if state != svc.Running {
		p.Steps = append(p.Steps, start)
	}
	return p, nil
}

func (s *scm) uninstall(context.Context) (Plan, error) {
	conf, state, err := s.current()
	if err != nil || conf == nil {
		return Plan{}, err
	}
	k, err := s.service()
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	if state != svc.Stopped {
		p.Steps = append(p.Steps, Step{Do: "stop the service " + Name, do: func(context.Context) error { return s.explain("stop", k.Stop()) }})
	}
	p.Steps = append(p.Steps, Step{Do: "remove the service " + Name, do: func(context.Context) error { return s.explain("remove", s.remove(k)) }})
	return p, nil
}

// remove takes away the service and its source in the Application log, also
// where one of them is missing.
func (s *scm) remove(k kardianos.Service) error {
	err := k.Uninstall()
	if err == nil {
		return nil
	}
	if e := eventlog.Remove(Name); e != nil && !errors.Is(e, fs.ErrNotExist) {
		return e
	}
	if conf, _, e := s.current(); e == nil && conf == nil {
		return nil
	}
	return err
}

// sourceKey is where Windows keeps who may tell it what its events mean.
const sourceKey = `SYSTEM\CurrentControlSet\Services\EventLog\Application\` + logging.EventSource

// source is the step that tells Windows of our events, nothing where that is
// done. The library does it with a new service.
func source() []Step {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, sourceKey, registry.QUERY_VALUE)
	if err == nil {
		_ = k.Close()
		return nil
	}
	return []Step{{Do: "register the source " + logging.EventSource + " of the Application log", do: func(context.Context) error {
		return eventlog.InstallAsEventCreate(logging.EventSource, eventlog.Error|eventlog.Warning|eventlog.Info)
	}}}
}

func (s *scm) control(_ context.Context, verb string) error {
	k, err := s.service()
	if err != nil {
		return err
	}
	return s.explain(verb, kardianos.Control(k, verb))
}

func (s *scm) status(context.Context) (Status, error) {
	conf, state, err := s.current()
	if err != nil {
		return Status{}, err
	}
	if conf == nil {
		return Status{State: "not installed", Hint: "keyfob service install --system"}, nil
	}
	words := map[svc.State]string{svc.Stopped: "stopped", svc.StartPending: "starting", svc.StopPending: "stopping", svc.Running: "running",
		svc.ContinuePending: "continuing", svc.PausePending: "pausing", svc.Paused: "paused"}
	return Status{Installed: true, Enabled: conf.StartType == mgr.StartAutomatic, Running: state == svc.Running, State: words[state], File: conf.BinaryPathName}, nil
}

// privateDir is the step that makes the directory of the machine's settings
// and data, nothing where it is there. It comes before anybody writes
// settings: everybody may make files in a directory that is made below
// %ProgramData% as usual. The error says who else may enter one that exists.
func privateDir(dir string) ([]Step, error) {
	if _, err := os.Stat(dir); err == nil {
		var wide *winacl.Error
		if err := winacl.CheckPrivate(dir); errors.As(err, &wide) {
			return nil, fail(wide.Help, "cannot use the directory of the machine's daemon: %w", err)
		}
		return nil, nil
	}
	return []Step{{Do: "make " + dir + ", for administrators and the system alone", do: func(context.Context) error {
		if err := winacl.MakePrivate(dir, true); err != nil {
			return fileError("make", dir, err)
		}
		return nil
	}, undo: func(context.Context) { _ = os.Remove(dir) }}}, nil
}

// WindowsLog is the file to which a service of Windows writes its log.
func WindowsLog(system bool, getenv func(string) string) string {
	base := getenv("LOCALAPPDATA")
	if system {
		base = getenv("ProgramData")
	}
	return filepath.Join(base, "keyfob", "keyfobd.log")
}

func (s *scm) logs(ctx context.Context, w io.Writer, o LogOptions) error {
	return tail(ctx, w, WindowsLog(true, s.c.Getenv), o)
}

// logonTask is a task of the task scheduler, by schtasks.
type logonTask struct{ c Config }

func (t *logonTask) sid() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fail("", "cannot tell which user this is: %w", err)
	}
	return u.User.Sid.String(), nil
}

func (t *logonTask) schtasks(ctx context.Context, args ...string) (string, error) {
	argv := append([]string{"schtasks.exe"}, args...)
	out, err := command(ctx, argv...)
	if err != nil {
		return out, commandError(argv, out, err)
	}
	return out, nil
}

func (t *logonTask) file(sid string) string {
	return filepath.Join(t.c.Getenv("LOCALAPPDATA"), "keyfob", "logon-task.xml")
}

// installed reports whether there is a task, and whether it is the one of
// this program: its definition is kept beside the data.
func (t *logonTask) installed(ctx context.Context, sid string) (there, same bool) {
	_, err := t.schtasks(ctx, "/Query", "/TN", taskName(sid))
	b, _ := os.ReadFile(t.file(sid))
	return err == nil, string(b) == string(utf16LE(t.c.taskText(sid)))
}

func (t *logonTask) installedArgs() []string {
	sid, err := t.sid()
	if err != nil {
		return nil
	}
	b, err := os.ReadFile(t.file(sid))
	if err != nil {
		return nil
	}
	return taskArgs(b)
}

func taskArgs(file []byte) []string {
	words, err := windows.DecomposeCommandLine("keyfobd " + taskLine(file))
	if err != nil {
		return nil
	}
	return words
}

func (t *logonTask) step(args ...string) Step {
	return Step{Run: append([]string{"schtasks.exe"}, args...)}
}

func (t *logonTask) install(ctx context.Context) (Plan, error) {
	sid, err := t.sid()
	if err != nil {
		return Plan{}, err
	}
	there, same := t.installed(ctx, sid)
	if there && same {
		return Plan{}, nil
	}
	var p Plan
	p.Steps = append(p.Steps, Step{Write: t.file(sid), Content: string(utf16LE(t.c.taskText(sid))), Mode: 0o600})
	make := t.step("/Create", "/F", "/TN", taskName(sid), "/XML", t.file(sid))
	if there {
		p.Steps = append(p.Steps, Step{Run: t.step("/End", "/TN", taskName(sid)).Run, optional: true})
	} else {
		make.back = [][]string{t.step("/Delete", "/F", "/TN", taskName(sid)).Run}
		if t.c.MakeRoom != nil {
			p.Steps = append(p.Steps, Step{Do: "end a daemon that runs already", do: t.c.MakeRoom})
		}
	}
	p.Steps = append(p.Steps, make, t.step("/Run", "/TN", taskName(sid)))
	return p, nil
}

func (t *logonTask) uninstall(ctx context.Context) (Plan, error) {
	sid, err := t.sid()
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	if there, _ := t.installed(ctx, sid); there {
		p.Steps = append(p.Steps, Step{Run: t.step("/End", "/TN", taskName(sid)).Run, optional: true}, t.step("/Delete", "/F", "/TN", taskName(sid)))
	}
	if _, err := os.Stat(t.file(sid)); err == nil {
		p.Steps = append(p.Steps, Step{Remove: t.file(sid)})
	}
	return p, nil
}

func (t *logonTask) control(ctx context.Context, verb string) error {
	sid, err := t.sid()
	if err != nil {
		return err
	}
	if there, _ := t.installed(ctx, sid); !there {
		return fail("keyfob service install", "cannot %s the service: it is not installed", verb)
	}
	if verb != "start" {
		if _, err := t.schtasks(ctx, "/End", "/TN", taskName(sid)); err != nil || verb == "stop" {
			return err
		}
	}
	_, err = t.schtasks(ctx, "/Run", "/TN", taskName(sid))
	return err
}

// status says whether there is a task; whether its daemon runs, the task
// scheduler tells in the language of the machine only.
func (t *logonTask) status(ctx context.Context) (Status, error) {
	sid, err := t.sid()
	if err != nil {
		return Status{}, err
	}
	there, same := t.installed(ctx, sid)
	if !there {
		return Status{State: "not installed", Hint: "keyfob service install"}, nil
	}
	s := Status{Installed: true, Enabled: true, State: "starts at logon; keyfob status tells of the daemon", File: taskName(sid)}
	if !same {
		s.Problem, s.Hint = "its task is of another keyfob", "keyfob service install"
	}
	return s, nil
}

func (t *logonTask) logs(ctx context.Context, w io.Writer, o LogOptions) error {
	return tail(ctx, w, WindowsLog(false, t.c.Getenv), o)
}

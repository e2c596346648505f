package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/control"
	"keyfob/internal/settings"
)

// dial connects to a daemon that runs: to the socket that was named, else
// the user's own, else the system daemon's.
func (a *app) dial(ctx context.Context) (*control.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	client, err := control.Dial(ctx, s.Socket)
	a.socket = s.Socket
	if errors.Is(err, control.ErrNotRunning) && !s.SocketExplicit && s.SystemSocket != "" && s.SystemSocket != s.Socket {
		system, e := control.Dial(ctx, s.SystemSocket)
		switch {
		case e == nil:
			client, err, a.socket = system, nil, s.SystemSocket
		case !errors.Is(e, control.ErrNotRunning):
			err, a.socket = e, s.SystemSocket
		}
	}
	if err != nil {
		return nil, a.whyUnreachable(err)
	}
	client.Version = a.Version
	a.client = client
	return client, nil
}

// whyUnreachable gives its hint to the error of a socket that is there and
// can't be used: who may, and what to do.
func (a *app) whyUnreachable(err error) error {
	s, e := a.settings()
	if e != nil {
		return err
	}
	machines := a.socket == s.SystemSocket
	switch {
	case errors.Is(err, fs.ErrPermission) && machines:
		return failure(err.Error(), "the machine's daemon serves every user, but its directory is closed to you; an administrator mends it: keyfob service install --system --force")
	case errors.Is(err, fs.ErrPermission) && s.SocketExplicit:
		return failure(err.Error(), "a daemon serves its own user alone: run keyfob as that user, or without --socket and KEYFOB_SOCKET for a daemon of your own")
	case errors.Is(err, fs.ErrPermission):
		return failure(err.Error(), "it lies among another user's files: see whose XDG_RUNTIME_DIR and HOME are (sudo may have kept them), or name another --socket")
	case errors.Is(err, control.ErrNotTrusted):
		return failure(err.Error(), "nothing was sent to it; name another --socket, or have that user end its daemon: keyfob stop")
	}
	return err
}

// noStartVariable keeps commands from starting a daemon, as --no-start does.
const noStartVariable = "KEYFOB_NO_START"

// mayStart reports whether a daemon may be started, or an older one replaced.
func (a *app) mayStart() bool {
	switch strings.ToLower(a.getenv(noStartVariable)) {
	case "", "0", "false", "no":
		return !a.opts.noStart
	}
	return false
}

// tell is --verbose: what was used for a call, and what it took. The daemon
// says who it is with its first reply.
func (a *app) tell(client *control.Client, method string, connecting, calling time.Duration) {
	if !a.opts.verbose {
		return
	}
	if s, err := a.settings(); err == nil && !a.told {
		a.told = true
		file := s.ConfigFile
		if !s.ConfigFound {
			file += " (none there)"
		}
		a.say("keyfob: settings: " + file)
		a.say("keyfob: vault and log: " + s.DataDir)
		hello := client.Server()
		a.say(fmt.Sprintf("keyfob: keyfobd %s, pid %d, on %s", hello.Version, hello.PID, a.socket))
	}
	a.say(fmt.Sprintf("keyfob: %s: connected in %s, answered in %s", method, briefly(connecting), briefly(calling)))
}

// briefly is a duration with three digits or so.
func briefly(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// connect is dial, with a daemon started if none runs, and an older one that
// was started on demand replaced.
func (a *app) connect(ctx context.Context) (*control.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	client, err := a.dial(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return a.start(ctx)
	}
	if err != nil {
		return nil, err
	}
	released := control.Older("0.0.0", a.Version) // a build without a version replaces nobody
	if !a.decidesAtStart() && !released {
		return client, nil
	}
	var v control.VersionResult
	if err = client.Call(ctx, control.MethodVersion, control.Empty{}, &v, nil); err == nil {
		err = a.agrees(ctx, client, v)
	}
	if errors.As(err, new(nothingKept)) {
		if err = a.end(ctx, client); err == nil {
			err = control.ErrGone
		}
	}
	switch {
	case errors.Is(err, control.ErrGone):
		a.ending = client.ServerPID()
		a.hangUp()
		return a.start(ctx)
	case err != nil:
		a.hangUp()
		return nil, err
	}
	if released && v.OnDemand && control.Older(v.Version, a.Version) && a.mayStart() {
		return a.restart(ctx)
	}
	return client, nil
}

// replaceOlder replaces an older daemon, if it was started on demand. The
// answer has been given: a failure is the next command's to tell.
func (a *app) replaceOlder() {
	if !a.mayStart() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait+stopWait)
	defer cancel()
	defer a.hangUp()
	_, _ = a.connect(ctx)
}

// call calls the daemon, starting one if need be. A daemon that was just
// ending is asked again where asking twice does no harm.
func (a *app) call(ctx context.Context, method string, params, result any, handle control.Handler) error {
	for patience := time.Now().Add(goneWait); ; {
		begin := time.Now()
		client, err := a.connect(ctx)
		if err != nil {
			return err
		}
		connected := time.Now()
		err = client.Do(ctx, method, params, result, handle)
		a.tell(client, method, connected.Sub(begin), time.Since(connected))
		var wire *control.Error
		if err != nil && !errors.As(err, &wire) {
			a.hangUp()
		}
		if !errors.Is(err, control.ErrGone) || !repeatable(method, params) || time.Now().After(patience) {
			return err
		}
		a.ending = client.ServerPID()
		time.Sleep(10 * time.Millisecond)
	}
}

// repeatable: calls that may be made twice for one command. A grant of exec
// that was made and never heard of ends with our process.
func repeatable(method string, params any) bool {
	switch method {
	case control.MethodCredentials, control.MethodList, control.MethodExplain, control.MethodStatus,
		control.MethodGrantList, control.MethodVersion, control.MethodUnlock, control.MethodReload,
		control.MethodAudit, control.MethodAuditVerify, control.MethodConsole, control.MethodWhoami, control.MethodMFAList,
		control.MethodDoctor, control.MethodPolicy, control.MethodForeignKeys, control.MethodMFADevices, control.MethodCertificateList:
		return true
	case control.MethodGrantAdd:
		p, ok := params.(control.GrantParams)
		return ok && p.ForExec
	}
	return false
}

const (
	startWait = 20 * time.Second // for a daemon to be ready
	stopWait  = 15 * time.Second // for one to end
	goneWait  = 3 * time.Second  // for one that hangs up to say something else
)

// start starts a daemon and connects to it. Of any number of commands that
// do so at once, one starts it and the others wait for the lock.
func (a *app) start(ctx context.Context) (*control.Client, error) {
	if !a.mayStart() {
		return nil, failure("keyfobd is not running, and is not to be started (--no-start or "+noStartVariable+")", "keyfob status, without either, starts it; keyfob service install has it run always")
	}
	// A daemon of one's own on the machine's socket would shut everybody else
	// out, and take the place of the machine's.
	if s, err := a.settings(); err == nil && s.SystemSocket != "" && samePlace(s.Socket, s.SystemSocket) {
		return nil, failure("the machine's keyfobd is not running", "keyfob service start --system")
	}
	return a.underStartLock(ctx, func(ctx context.Context, s *settings.Settings) (*control.Client, error) {
		client, err := a.dial(ctx)
		if err == nil { // somebody has started it meanwhile
			var v control.VersionResult
			if a.decidesAtStart() {
				err = client.Call(ctx, control.MethodVersion, control.Empty{}, &v, nil)
			}
			if err == nil {
				err = a.agrees(ctx, client, v)
			}
			if err != nil {
				a.hangUp()
			}
			return client, err
		}
		if !errors.Is(err, control.ErrNotRunning) {
			return nil, err
		}
		// One that has just hung up on us may still be at its last: the
		// next would find its socket taken.
		if err := a.waitOver(ctx, a.ending); err != nil {
			return nil, err
		}
		return a.launch(ctx, s)
	})
}

// samePlace reports whether two sockets would be one, by whatever path.
func samePlace(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	one, err1 := os.Stat(filepath.Dir(a))
	two, err2 := os.Stat(filepath.Dir(b))
	return err1 == nil && err2 == nil && os.SameFile(one, two) && filepath.Base(a) == filepath.Base(b)
}

// restart ends the daemon of a.client and starts our own release.
func (a *app) restart(ctx context.Context) (*control.Client, error) {
	a.hangUp()
	return a.underStartLock(ctx, func(ctx context.Context, s *settings.Settings) (*control.Client, error) {
		client, err := a.dial(ctx)
		if errors.Is(err, control.ErrNotRunning) {
			return a.launch(ctx, s)
		}
		if err != nil {
			return nil, err
		}
		var v control.VersionResult
		err = client.Call(ctx, control.MethodVersion, control.Empty{}, &v, nil)
		if err == nil && !(v.OnDemand && control.Older(v.Version, a.Version)) {
			return client, nil // somebody has done it meanwhile
		}
		if err == nil {
			err = a.end(ctx, client)
		}
		a.hangUp()
		if err != nil && !errors.Is(err, control.ErrGone) {
			return nil, err
		}
		return a.launch(ctx, s)
	})
}

func (a *app) underStartLock(ctx context.Context, do func(context.Context, *settings.Settings) (*control.Client, error)) (*control.Client, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait+stopWait)
	defer cancel()
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		return nil, failure("cannot start keyfobd: cannot make its directory: "+err.Error(), elsewhere)
	}
	path := filepath.Join(s.DataDir, "start.lock")
	lock := flock.New(path, flock.SetPermissions(0o600))
	if ok, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return nil, failure("cannot start keyfobd: another keyfob has been starting it for too long", "see "+filepath.Join(s.DataDir, logName))
		}
		return nil, failure("cannot start keyfobd: cannot lock "+path+": "+err.Error(), elsewhere)
	} else if !ok {
		return nil, fmt.Errorf("cannot start keyfobd: cannot lock %s", path)
	}
	defer func() { _ = lock.Close() }()
	return do(ctx, s)
}

// elsewhere helps where the data directory can't be written to.
const elsewhere = "--data-dir or KEYFOB_DATA_DIR names another directory"

// logName is the log of a daemon started on demand, in the data directory.
const logName = "keyfobd.log"

// launch starts the daemon and connects once it is ready. The start lock is
// held.
func (a *app) launch(ctx context.Context, s *settings.Settings) (*control.Client, error) {
	if a.badFile != nil {
		return nil, a.badFile
	}
	program, err := findDaemon()
	if err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(filepath.Join(s.DataDir, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, failure("cannot start keyfobd: cannot open its log: "+err.Error(), elsewhere)
	}
	defer func() { _ = logFile.Close() }()

	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	cmd := &exec.Cmd{
		Path:   program,
		Args:   append([]string{program}, a.daemonArgs(s)...),
		Env:    a.daemonEnv(),
		Dir:    rootDir(program),
		Stdout: logFile,
		Stderr: logFile,
	}
	began, err := startDetached(cmd)
	if err != nil {
		return nil, fmt.Errorf("cannot start keyfobd: %w", err)
	}
	a.spawn = cmd.Process
	if err := began.wait(ctx, func() bool { return a.connects(ctx, s.Socket) }); err != nil {
		// It may have found the socket taken by a daemon of somebody else's
		// making: then that one will do.
		if a.connects(ctx, s.Socket) {
			return a.client, nil
		}
		var p *problem
		if errors.As(err, &p) && p.hint == "" {
			p.hint = "see " + logFile.Name()
		}
		return nil, err
	}
	if !a.connects(ctx, s.Socket) {
		return nil, failure("cannot start keyfobd: it is ready but does not answer on "+s.Socket, "see "+logFile.Name())
	}
	return a.client, nil
}

func (a *app) connects(ctx context.Context, socket string) bool {
	client, err := control.Dial(ctx, socket)
	if err != nil {
		return false
	}
	client.Version = a.Version
	a.client, a.socket = client, socket
	return true
}

// findDaemon returns keyfobd's file.
func findDaemon() (string, error) {
	path, err := findBeside("keyfobd")
	if err != nil {
		return "", failure("cannot start keyfobd: "+err.Error(), "install keyfobd beside keyfob")
	}
	return path, nil
}

// findBeside returns the file of another program of keyfob: beside our own,
// links resolved, else on PATH.
func findBeside(name string) (string, error) {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	own, err := os.Executable()
	if err == nil {
		if resolved, err := filepath.EvalSymlinks(own); err == nil {
			own = resolved
		}
		beside := filepath.Join(filepath.Dir(own), name)
		if st, err := os.Stat(beside); err == nil && !st.IsDir() {
			return beside, nil
		}
	}
	found, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("it is neither in %s nor on PATH", filepath.Dir(own))
	}
	return filepath.Abs(found)
}

// daemonArgs are the resolved settings, and the others as they were named:
// paths absolute, because the daemon runs in another directory.
func (a *app) daemonArgs(s *settings.Settings) []string {
	args := []string{"run", "--on-demand", "--data-dir", s.DataDir, "--socket", s.Socket, "--keystore", s.Keystore}
	if s.ConfigFound {
		args = append(args, "--config", s.ConfigFile)
	}
	named := func(flag, value, variable, resolved string) {
		if value != "" || variable != "" && a.getenv(variable) != "" {
			args = append(args, flag, resolved)
		}
	}
	named("--profiles-file", a.flags.ProfilesFile, "KEYFOB_PROFILES_FILE", s.ProfilesFile)
	named("--passphrase-file", a.flags.PassphraseFile, "KEYFOB_PASSPHRASE_FILE", s.PassphraseFile)
	named("--imds", a.flags.IMDS, "", a.flags.IMDS)
	named("--container", a.flags.Container, "", a.flags.Container)
	named("--interactive", a.flags.Interactive, "", a.flags.Interactive)
	named("--log-level", a.flags.LogLevel, "", a.flags.LogLevel)
	named("--log-format", a.flags.LogFormat, "", a.flags.LogFormat)
	return args
}

// end asks the daemon of client to end and waits until it has.
func (a *app) end(ctx context.Context, client *control.Client) error {
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	err := client.Call(ctx, control.MethodStop, control.Empty{}, nil, nil)
	pid := client.Server().PID
	if pid != client.ServerPID() {
		pid = 0 // behind socket activation, or in another pid namespace
	}
	var wire *control.Error
	if errors.As(err, &wire) && wire.Code == control.CodeProtocol && pid > 0 {
		// It does not understand the word, but by the kernel's word it is a
		// process of our own user.
		err = terminate(pid)
	}
	if err != nil && !errors.Is(err, control.ErrGone) {
		return err
	}
	if err := client.WaitClosed(ctx); err != nil {
		return failure(fmt.Sprintf("keyfobd (pid %d) has not ended in %s", client.Server().PID, stopWait), "")
	}
	a.hangUp()
	return a.waitOver(ctx, pid)
}

// waitOver waits until a daemon's process has ended; 0 is none.
func (a *app) waitOver(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	gone := watchProcess(pid)
	defer gone.close()
	for !gone.over() {
		select {
		case <-ctx.Done():
			return failure(fmt.Sprintf("keyfobd (pid %d) has not ended in %s", pid, stopWait), "")
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

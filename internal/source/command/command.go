package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/prefetch"
)

// Limits where Config and Program name none.
const (
	DefaultTimeout = time.Minute // setting process_timeout
	MaxOutput      = 1 << 20     // bytes of standard output, and of standard error
)

// endGrace is how long what the first process has left behind may go on
// writing after its end.
const endGrace = 500 * time.Millisecond

// keptErrors is how much of standard error is kept for the log.
const keptErrors = 4 << 10

// Config is what a Runner is made from; the zero value is usable.
type Config struct {
	Environ []string      // NAME=value, the daemon's environment; nil is that of this process
	Timeout time.Duration // of a program that names none; 0 is DefaultTimeout
	Log     *logrus.Entry // nil for none
}

// Runner runs programs. It is safe for concurrent use, and holds nothing
// between runs.
type Runner struct {
	env     []string
	timeout atomic.Int64 // nanoseconds
	log     *logrus.Entry
}

// New returns a Runner. It starts nothing.
func New(c Config) *Runner {
	if c.Environ == nil {
		c.Environ = os.Environ()
	}
	r := &Runner{env: childEnv(c.Environ, runtime.GOOS == "windows"), log: c.Log}
	r.SetTimeout(c.Timeout)
	return r
}

// SetTimeout sets Config.Timeout anew, for programs that start from now on;
// 0 is DefaultTimeout.
func (r *Runner) SetTimeout(d time.Duration) {
	if d <= 0 {
		d = DefaultTimeout
	}
	r.timeout.Store(int64(d))
}

// Timeout is the limit of a program that names none.
func (r *Runner) Timeout() time.Duration { return time.Duration(r.timeout.Load()) }

// Program is what to run: a Line for the shell (`sh -c LINE`, `cmd.exe /C
// LINE`), or Args, the first of which is looked up on PATH.
type Program struct {
	// Name is what errors and the log call it: "credential_process of
	// profile dev". Lines and arguments may hold secrets and are in neither.
	Name    string
	Line    string
	Args    []string
	Timeout time.Duration // 0 is that of the Runner
}

// Reason says why a program gave no output.
type Reason int

// The reasons.
const (
	NotStarted Reason = iota + 1
	NotFound          // there is no such program; a shell says so by exit code 127
	Exited            // by itself, with an exit code other than 0
	Killed            // by a signal that is not ours
	TimedOut          // by its own limit or the context's
	TooMuch           // it wrote more than MaxOutput
)

// Error is a program that failed. It holds nothing of what it wrote.
type Error struct {
	Reason Reason
	Code   int // exit code where Reason is Exited or NotFound and a shell said it
	text   string
	err    error
}

func (e *Error) Error() string { return e.text }
func (e *Error) Unwrap() error { return e.err }

// Run runs a program and returns what it wrote to standard output. Errors:
// *Error, whose text begins with p.Name and tells what happened ("… ended
// with exit code 3"); context.Canceled when nobody waits any more. Nothing
// that it started is left when Run returns, but for what package command
// says.
func (r *Runner) Run(ctx context.Context, p Program) (cred.Secret, error) {
	if err := ctx.Err(); err != nil {
		return cred.Secret{}, r.late(p, err, 0)
	}
	cmd, err := r.command(p)
	if err != nil {
		return cred.Secret{}, err
	}
	limit := p.Timeout
	if limit <= 0 {
		limit = r.Timeout()
	}
	if until, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(until))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	began := time.Now()
	res, err := r.run(ctx, cmd)
	defer clear(res.out)
	if err != nil {
		return cred.Secret{}, unstarted(p, err)
	}
	failed := r.outcome(ctx, p, limit, res)
	if r.log != nil && r.log.Logger.IsLevelEnabled(logrus.DebugLevel) {
		e := r.log.WithFields(logrus.Fields{"program": p.Name, "took": time.Since(began).Round(time.Millisecond).String(), "bytes": len(res.out)})
		if text := maskErrors(res.errs, res.out); text != "" {
			e = e.WithField("stderr", text)
		}
		if failed != nil {
			e = e.WithField("error", failed.Error())
		}
		e.Debug("program ended")
	}
	if failed != nil {
		return cred.Secret{}, failed
	}
	return cred.SecretBytes(res.out), nil
}

// result is what a program has left.
type result struct {
	out, errs []byte
	flooded   bool
	ended     bool // by itself
	state     *os.ProcessState
}

func (r *Runner) outcome(ctx context.Context, p Program, limit time.Duration, res result) error {
	switch {
	case res.flooded:
		return &Error{Reason: TooMuch, text: fmt.Sprintf("%s wrote more than %d bytes and was ended", p.Name, MaxOutput)}
	case !res.ended:
		return r.late(p, ctx.Err(), limit)
	case res.state == nil:
		return &Error{Reason: Killed, text: p.Name + " ended, and nobody knows how"}
	case res.state.Success():
		return nil
	}
	code := res.state.ExitCode()
	e := &Error{Reason: Exited, Code: code, text: fmt.Sprintf("%s ended with exit code %d", p.Name, code)}
	if why, ok := signalled(res.state); ok {
		e.Reason, e.Code, e.text = Killed, 0, p.Name+" was ended by "+why
	} else if p.Line != "" && code == shellNotFound {
		e.Reason = NotFound
		e.text += ": the shell found no such program"
	} else if p.Line != "" && code == shellNotRunnable {
		e.text += ": the shell may not run that program"
	}
	return e
}

// late is the error of a program that did not end in time, or that nobody
// waits for.
func (r *Runner) late(p Program, err error, limit time.Duration) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	text := p.Name + " did not end in time"
	if limit > 0 {
		text = fmt.Sprintf("%s did not end within %s", p.Name, limit.Round(time.Millisecond))
	}
	return &Error{Reason: TimedOut, text: text, err: err}
}

// command is the process to start.
func (r *Runner) command(p Program) (*exec.Cmd, error) {
	var cmd *exec.Cmd
	if p.Line != "" {
		cmd = shell(p.Line)
	} else {
		if len(p.Args) == 0 {
			return nil, unstarted(p, errors.New("it is empty"))
		}
		path, err := lookPath(p.Args[0], variable(r.env, "PATH"))
		if err != nil {
			return nil, unstarted(p, err)
		}
		cmd = exec.Command(path, p.Args[1:]...)
	}
	cmd.Env = append(r.env[:len(r.env):len(r.env)], marker+"="+newMark())
	cmd.Dir = workDir(variable(r.env, homeVariable))
	return cmd, nil
}

// run starts cmd and returns when nothing of it is left. The error says that
// it could not be started.
func (r *Runner) run(ctx context.Context, cmd *exec.Cmd) (result, error) {
	var res result
	outR, outW, err := os.Pipe()
	if err != nil {
		return res, err
	}
	defer func() { _ = outR.Close() }()
	errR, errW, err := os.Pipe()
	if err != nil {
		_ = outW.Close()
		return res, err
	}
	defer func() { _ = errR.Close() }()
	cmd.Stdout, cmd.Stderr = outW, errW // standard input is the null device

	prefetch.Program(cmd.Path)
	// The death signal comes when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	group, err := start(cmd)
	_, _ = outW.Close(), errW.Close()
	if err != nil {
		return res, err
	}

	flood := make(chan struct{})
	var once sync.Once
	full := func() { once.Do(func() { close(flood) }) }
	var readers sync.WaitGroup
	readers.Go(func() { res.out = readAll(outR, MaxOutput, full) })
	readers.Go(func() { res.errs = readSome(errR, keptErrors, MaxOutput, full) })
	read := make(chan struct{})
	go func() { readers.Wait(); close(read) }()
	exited := make(chan struct{})
	go func() { group.await(cmd); close(exited) }()

	select {
	case <-exited:
		res.ended = true
		// What is in the pipes is read to its end, unless somebody whom it
		// left behind holds them open.
		grace := time.NewTimer(endGrace)
		select {
		case <-read:
		case <-grace.C:
		case <-flood:
		case <-ctx.Done():
		}
		grace.Stop()
	case <-flood:
	case <-ctx.Done():
	}
	select {
	case <-flood:
		res.flooded = true
	default:
	}
	group.kill(cmd)
	<-exited
	_ = cmd.Wait()
	res.state = cmd.ProcessState
	if !res.ended || res.flooded || !res.state.Success() {
		group.hunt(variable(cmd.Env, marker))
	}
	group.close()
	_, _ = outR.Close(), errR.Close() // ends what reads from somebody who got away
	<-read
	return res, nil
}

// readAll reads at most limit bytes; full is called when there are more.
func readAll(f *os.File, limit int, full func()) []byte {
	b := make([]byte, 0, 4096)
	for {
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > limit:
			full()
			clear(b)
			return nil
		case err != nil:
			return b
		case len(b) == cap(b): // grown by hand, so that no copy of a secret is left
			grown := make([]byte, len(b), 2*cap(b))
			copy(grown, b)
			clear(b)
			b = grown
		}
	}
}

// readSome keeps the first bytes and drops the others; full is called when
// there are more than limit.
func readSome(f io.Reader, keep, limit int, full func()) []byte {
	kept := make([]byte, 0, keep)
	buf := make([]byte, 4096)
	for total := 0; ; {
		n, err := f.Read(buf)
		kept = append(kept, buf[:min(n, keep-len(kept))]...)
		if total += n; total > limit {
			full()
			return kept
		}
		if err != nil {
			return kept
		}
	}
}

// errNoProgram: a path that leads to no file.
var errNoProgram = errors.New("there is no such program")

// unstarted says why a program could not be started, without the path: it
// may be anything that stands in a profile.
func unstarted(p Program, err error) error {
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		err = lookup.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	e := &Error{Reason: NotStarted, err: err}
	if errors.Is(err, exec.ErrNotFound) {
		err = errors.New("there is no such program on PATH")
		e.Reason = NotFound
	} else if errors.Is(err, errNoProgram) {
		e.Reason = NotFound
	}
	e.text = p.Name + " cannot be started: " + err.Error()
	return e
}

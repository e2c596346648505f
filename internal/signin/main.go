package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes of the program.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitNobody = 3 // nobody is there to be shown or asked anything
)

// maxRequest bounds what is read from standard input.
const maxRequest = 64 << 10

const (
	// notifyLimit bounds one notification. The parent has a longer limit of
	// its own.
	notifyLimit = 5 * time.Second
	// askLimit is how long a question stands when it brings no limit.
	askLimit = 10 * time.Minute
)

var (
	// errNobody: this way of reaching a person does not exist here.
	errNobody = errors.New("nobody can be reached")
	// errRefused: the person said no, or typed nothing.
	errRefused = errors.New("refused")
	// errUsage: what came on standard input is no request.
	errUsage = errors.New("bad request")
	// errInterrupted is why the context ended when Ctrl-C was pressed.
	errInterrupted = errors.New("interrupted")
)

// Main runs the command of os.Args and returns the exit code: 0 when the
// notification was shown or the question has its answer (a refusal is one),
// 1 when that failed, 2 when the arguments or standard input are no request,
// 3 when nobody is there.
func Main() int {
	harden()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-signals:
			if s == os.Interrupt {
				cancel(errInterrupted)
				return
			}
			cancel(fmt.Errorf("ended by %s", s))
		case <-ctx.Done():
		}
	}()
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	cancel(nil)
	<-done
	signal.Stop(signals)
	return code
}

func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	command := ""
	if len(args) == 1 {
		command = args[0]
	}
	var err error
	switch command {
	case "notify":
		var n notification
		if err = read(in, &n); err == nil {
			err = doNotify(ctx, n)
		}
	case "ask":
		var q question
		if err = read(in, &q); err == nil {
			err = doAsk(ctx, q, out)
		}
	case "saml":
		var q samlRequest
		if err = read(in, &q); err == nil {
			err = doSAML(ctx, q, out)
		}
	default:
		fmt.Fprintln(errs, "keyfob-signin: cannot run on its own: keyfob and keyfobd start it")
		fmt.Fprintln(errs, "hint: keyfob-signin notify|ask|saml reads one JSON object from standard input")
		return exitUsage
	}
	if err == nil {
		return exitDone
	}
	// One line, and no terminal sequences of programs or buses.
	fmt.Fprintf(errs, "keyfob-signin: cannot %s: %s\n", command, plain(err.Error(), 500))
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errNobody):
		return exitNobody
	}
	return exitFailed
}

// read reads the one JSON object of a request. Its errors quote nothing of
// what was read.
func read(in io.Reader, into any) error {
	b, err := io.ReadAll(io.LimitReader(in, maxRequest+1))
	switch {
	case err != nil:
		return fmt.Errorf("%w: standard input can't be read", errUsage)
	case len(b) > maxRequest:
		return fmt.Errorf("%w: it is longer than %d bytes", errUsage, maxRequest)
	case json.Unmarshal(b, into) != nil:
		return fmt.Errorf("%w: standard input is not one JSON object", errUsage)
	}
	return nil
}

// doNotify shows n within the time limit, also when what shows it hangs.
func doNotify(ctx context.Context, n notification) error {
	n = n.cleaned()
	if n.Title == "" {
		return fmt.Errorf("%w: the notification has no title", errUsage)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, notifyLimit, fmt.Errorf("nothing answered in %s", notifyLimit))
	defer cancel()
	// A library call that takes no context ends with the process.
	shown := make(chan error, 1)
	go func() { shown <- show(ctx, n) }()
	select {
	case err := <-shown:
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

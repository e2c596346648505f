package cli

import (
	"context"
	"errors"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"keyfob/internal/control"
	"keyfob/internal/watch"
)

// watchStatus is `keyfob status --watch`.
func (a *app) watchStatus() int {
	const what = "show the status"
	if a.opts.json {
		return a.fail(what, usage("--watch is for people, and --json for programs", "keyfob status --json"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// The first answer is had before the terminal is taken, so that why there
	// is none is said in the usual way.
	first, err := a.fetchStatus(ctx)
	if err != nil {
		return a.fail(what, err)
	}
	err = watch.Run(ctx, watch.Config{
		Status: func(ctx context.Context) (*control.StatusResult, error) {
			if st := first; st != nil {
				first = nil
				return st, nil
			}
			return a.fetchStatus(ctx)
		},
		Open:   watch.OpenTerminal,
		Act:    a.actOn,
		Colour: a.variable("NO_COLOR") == "" && a.getenv("TERM") != "dumb",
		ASCII:  !a.unicodeTerminal(),
	})
	if errors.Is(err, watch.ErrNoTerminal) {
		return a.fail(what, usage("there is no terminal to show it on", "keyfob status"))
	}
	if err != nil {
		return a.fail(what, err)
	}
	return exitDone
}

func (a *app) fetchStatus(ctx context.Context) (*control.StatusResult, error) {
	var st control.StatusResult
	err := a.call(ctx, control.MethodStatus, control.Empty{}, &st, nil)
	return &st, err
}

// actOn answers a question, or signs in to a profile, for the view; what it
// returns stands there afterwards.
func (a *app) actOn(ctx context.Context, row watch.Row) string {
	ctx, cancel := context.WithTimeout(ctx, a.signInWait())
	defer cancel()
	var err error
	done, not := "answered", "cannot answer: "
	if row.Interaction != "" {
		err = a.call(ctx, control.MethodAnswer, control.AnswerParams{Interaction: row.Interaction}, nil, a.handler("answer"))
	} else {
		done, not = "signed in to "+row.Profile, "cannot sign in: "
		c := control.Context{Profile: row.Profile, Named: true, MayAsk: true}
		a.addCaller(&c)
		err = a.call(ctx, control.MethodLogin, control.LoginParams{Context: c}, nil, a.handler("login"))
	}
	switch {
	case err == nil:
		return done
	case strings.HasPrefix(err.Error(), "cannot "):
		return err.Error()
	}
	return not + err.Error()
}

// unicodeTerminal reports whether the person's locale is UTF-8 (POSIX: the
// first of LC_ALL, LC_CTYPE and LANG that is set).
func (a *app) unicodeTerminal() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return runtime.GOOS != "linux" // where programs have no locale but the system's, which is Unicode
}

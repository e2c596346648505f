package cli

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"keyfob/internal/control"
)

// consoleFlags are the flags of console besides the region's and the
// policy's.
func consoleFlags(o *options, fs *flag.FlagSet) {
	fs.BoolVar(&o.print, "print", false, "print the address instead of opening it; whoever has it within 15 minutes is signed in")
	fs.StringVar(&o.service, "service", "", "`service` whose page to open, by its short name, such as s3")
	fs.Var(&o.duration, "duration", "`duration` of the console session, 15m to 12h (36h for a user's keys)")
	fs.BoolVar(&o.switchRole, "switch-role", false, "the link by which somebody who is signed in already takes P's role; it holds no credentials")
}

// sessionLength is a duration flag that also takes seconds, as AWS's own
// settings do.
type sessionLength time.Duration

func (l *sessionLength) String() string { return time.Duration(*l).String() }

func (l *sessionLength) Set(s string) error {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		s += "s"
	}
	return (*expiry)(l).Set(s)
}

// console is `keyfob console`.
func (a *app) console(in invocation) int {
	const what = "open the console"
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	p := control.ConsoleParams{Context: c, Service: a.opts.service, Duration: int64(time.Duration(a.opts.duration) / time.Second), SwitchRole: a.opts.switchRole,
		Open: !a.opts.json && !a.opts.print && !a.opts.switchRole}
	if p.SessionPolicy, err = a.sessionPolicy(); err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(awsWait, c.MayAsk)
	defer cancel()
	var r control.ConsoleResult
	if err := a.call(ctx, control.MethodConsole, p, &r, a.handler("console")); err != nil {
		return a.fail(what, err)
	}
	url := r.URL
	if a.opts.switchRole {
		if url = r.SwitchRole; url == "" {
			return a.fail(what, failure("cannot make a switch-role link for "+c.Profile+": it does not end in a role that is assumed", ""))
		}
	}
	if err := checkURL(url); err != nil {
		return a.fail(what, failure(err.Error(), "")) // which does not quote it
	}
	if r.Warning != "" && !a.opts.switchRole {
		a.notice("warning: " + r.Warning)
	}
	switch {
	case a.opts.json:
		return a.printJSON(r)
	case a.opts.print:
		return a.print(url + "\n")
	}
	return a.openConsole(ctx, c.Profile, url)
}

// openConsole opens the address in the person's browser. Openers take an
// address as their argument, which other users of the machine can see for as
// long as they run: it is one of the daemon, good once and for this user, which
// sends the browser on to the console. Unlike a sign-in's it is shown nowhere,
// also when that fails.
func (a *app) openConsole(ctx context.Context, name, url string) int {
	const what, hint = "open the console", "keyfob console --print prints the address"
	line, err := a.browserLine(url)
	switch {
	case err != nil:
		return a.fail(what, failure("cannot use $BROWSER: "+err.Error(), hint))
	case line == nil:
		return a.fail(what, failure("there is no browser here: neither a desktop nor $BROWSER", hint))
	}
	program := line[0]
	b, err := a.startBrowser(line)
	if err == nil {
		err = b.watch(ctx, func() {})
	}
	if err != nil {
		return a.fail(what, failure(fmt.Sprintf("cannot open a browser: %s: %v", program, err), hint))
	}
	return a.print(oneLine("opened the console as "+name) + "\n")
}

package cli

import (
	"context"
	"sync"
	"time"

	"golang.org/x/term"
)

// statusLine is the one line of standard error that is written anew while
// something is waited for. Whoever writes anything else there clears it first.
type statusLine struct {
	mu    sync.Mutex // guards shown, and writes to standard error while a line may be shown
	shown bool
}

const clearLine = "\r\x1b[K"

// write puts text on standard error, in place of a line that is shown.
func (a *app) write(text string) {
	a.line.mu.Lock()
	defer a.line.mu.Unlock()
	if a.line.shown {
		text = clearLine + text
		a.line.shown = false
	}
	_, _ = a.Stderr.WriteString(text)
}

func (a *app) rewrite(text string) {
	a.line.mu.Lock()
	defer a.line.mu.Unlock()
	_, _ = a.Stderr.WriteString(clearLine + text)
	a.line.shown = text != ""
}

// forProgram reports whether the command serves a program, which takes what
// stands on standard error for its own or shows it nobody.
func (p *asker) forProgram() bool {
	return p.command == "credential-process" || p.command == "env" || p.command == "exec"
}

// How often who waits is told so: on a terminal, and elsewhere.
const (
	progressTick  = time.Second
	progressLines = time.Minute
)

// waitFor blocks until ctx ends, and tells the person meanwhile what is
// waited for: on one line of a terminal, elsewhere by a line a minute. A
// program that runs keyfob for its credentials is told nothing.
func (p *asker) waitFor(ctx context.Context, what string) {
	if p.opts.quiet || p.forProgram() {
		<-ctx.Done()
		return
	}
	rewritten := term.IsTerminal(int(p.Stderr.Fd())) && p.getenv("TERM") != "dumb"
	every := progressLines
	if rewritten {
		every = progressTick
		defer p.rewrite("")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for begin := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			line := "keyfob: waiting for " + what + ", " + shortly(time.Since(begin))
			if rewritten {
				width := p.lookOf(p.Stderr).width
				p.rewrite(cut(oneLine(line), max(width-1, minimumColumn)))
			} else {
				p.say(line)
			}
		}
	}
}

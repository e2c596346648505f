package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keyfob/internal/control"
)

// asker puts the daemon's questions of one call to the person.
type asker struct {
	*app
	command string      // "login", "credential-process", …
	lines   *lineSource // standard input, once it has been read for an answer
}

// handler answers the daemon's questions for command, and passes its
// notices on to standard error.
func (a *app) handler(command string) control.Handler {
	p := &asker{app: a, command: command}
	return p.handle
}

func (p *asker) handle(ctx context.Context, e control.Event) (*control.Answer, error) {
	if e.Event == control.EventNotice {
		p.notice(e.Notice)
		return nil, nil
	}
	if e.Prompt == nil {
		return nil, nil
	}
	q := *e.Prompt
	if q.Error != "" && q.Kind != control.PromptMFA {
		p.show("keyfob: " + q.Error)
	}
	switch q.Kind {
	case control.PromptBrowser:
		return p.browser(ctx, q)
	case control.PromptDevice:
		return p.device(ctx, q)
	case control.PromptCode:
		return p.code(ctx, q)
	case control.PromptSAML:
		return p.saml(ctx, q)
	case control.PromptConfirm, control.PromptChoice:
		return p.choose(ctx, q)
	}
	return p.mfa(ctx, q)
}

// show writes lines for the person to read: to standard error, and to the
// terminal where the program that runs us captures that.
func (p *asker) show(lines ...string) {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(oneLine(l) + "\n")
	}
	p.showText(b.String())
}

// showText is show for a text that is fit for a terminal.
func (p *asker) showText(text string) {
	if p.command == "credential-process" && writeTerminal(text) {
		return
	}
	p.write(text)
}

// answersOnStdin: login and answer take answers as lines of a standard input
// that is no terminal; the others leave it to the program that they serve.
func (p *asker) answersOnStdin() bool {
	return (p.command == "login" || p.command == "answer") && !p.stdinIsTerminal()
}

// stdinLine is the next line of standard input, "" at its end. When ctx ends
// it waits no longer.
func (p *asker) stdinLine(ctx context.Context) (string, error) {
	if p.lines == nil {
		p.lines = &lineSource{from: p.Stdin}
	}
	wait, done := waitForInput(ctx, p.Stdin)
	defer done()
	p.lines.wait = wait
	return p.lines.next()
}

func (p *asker) mfa(ctx context.Context, q control.Prompt) (*control.Answer, error) {
	if p.answersOnStdin() {
		code, err := p.stdinLine(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil || code == "" {
			why := "standard input holds no MFA code"
			if q.Error != "" {
				why = q.Error
			}
			return nil, person("cannot sign in to "+q.Profile+": "+why, "keyfob login "+quoted(q.Profile))
		}
		return &control.Answer{Value: code}, nil
	}
	if q.Error != "" {
		p.show("keyfob: " + q.Error)
	}
	if q.Text == "" {
		q.Text = "MFA code for " + q.Profile
	}
	for tries := 1; ; tries++ {
		a, err := p.typed(ctx, q, oneLine(q.Text)+": ", false)
		if err != nil || a.Refused || sixDigits(a.Value) || tries == 3 {
			return a, err
		}
		// A slip is not worth a call to AWS, nor an end.
		p.show("keyfob: a code has six digits")
	}
}

func sixDigits(code string) bool {
	code = strings.TrimSpace(code)
	return len(code) == 6 && strings.Trim(code, "0123456789") == ""
}

// typed asks for a line; an empty one is a refusal.
func (p *asker) typed(ctx context.Context, q control.Prompt, question string, echo bool) (*control.Answer, error) {
	value, err := askTerminal(ctx, question, echo)
	if errors.Is(err, errNoTerminal) {
		return p.dialog(ctx, q)
	}
	if errors.Is(err, errInputEnded) {
		return answer(""), nil
	}
	if err != nil {
		return nil, err
	}
	return answer(value), nil
}

func answer(value string) *control.Answer {
	if value == "" {
		return &control.Answer{Refused: true}
	}
	return &control.Answer{Value: value}
}

// noWay is the error where a question can't be put to anybody.
func noWay(q control.Prompt, why string) error {
	what := "for the MFA code for " + q.Profile
	switch {
	case q.Kind == control.PromptCode:
		what = "for the code that the page shows, for " + q.Profile
	case q.Kind == control.PromptConfirm:
		what = "for a person's yes to " + q.Profile
	case q.Kind == control.PromptChoice: // whose text is a question
		what = strconv.Quote(orText(q.Text, "which one?")) + " for " + q.Profile
	case q.Text != "": // "MFA code for DEVICE"
		what = "for " + q.Text
	}
	line := "keyfob login " + quoted(q.Profile)
	if q.Kind == control.PromptConfirm {
		line = strings.TrimSpace("keyfob answer " + q.Interaction)
	}
	return person("cannot ask "+what+": "+why, line+", in a terminal")
}

// about is the first line of what is shown for a question.
func about(q control.Prompt) string {
	if q.Text != "" {
		return "keyfob: " + q.Text
	}
	return "keyfob: sign in to " + q.Profile
}

// browser opens the URL. The answer comes to the daemon's own listener, and
// what it says next ends ctx.
func (p *asker) browser(ctx context.Context, q control.Prompt) (*control.Answer, error) {
	noBrowser := &control.Answer{Value: control.AnswerNoBrowser}
	if err := checkURL(q.URL); err != nil {
		return nil, failure("cannot open the sign-in page: "+err.Error(), "")
	}
	line, err := p.browserLine(q.URL)
	if err != nil {
		p.show("keyfob: cannot use $BROWSER: " + err.Error())
		return noBrowser, nil
	}
	if line == nil {
		return noBrowser, nil
	}
	b, err := p.startBrowser(line)
	if err == nil {
		shown := func() { p.show(about(q)+" in the browser that was opened, or open:", q.URL) }
		err = b.watch(ctx, shown)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		p.show("keyfob: cannot open a browser: " + line[0] + ": " + err.Error())
		return noBrowser, nil
	}
	p.waitFor(ctx, "the browser")
	return nil, ctx.Err()
}

// device shows where to sign in with any browser, and waits.
func (p *asker) device(ctx context.Context, q control.Prompt) (*control.Answer, error) {
	if err := checkURL(q.URL); err != nil {
		return nil, failure("cannot show the sign-in page: "+err.Error(), "")
	}
	p.show(about(q)+": in any browser open", q.URL)
	if q.UserCode != "" {
		p.show("and check that it shows the code", q.UserCode)
	}
	if p.opts.qr {
		p.drawQR(q.URL)
	}
	p.waitFor(ctx, "the sign-in in a browser")
	return nil, ctx.Err()
}

func (p *asker) drawQR(url string) {
	code, err := encodeQR([]byte(url))
	if err != nil {
		p.show("keyfob: cannot draw a QR code: " + err.Error())
		return
	}
	p.showText(code.halfBlocks())
}

// code shows an address, and asks for what the page there shows.
func (p *asker) code(ctx context.Context, q control.Prompt) (*control.Answer, error) {
	if err := checkURL(q.URL); err != nil {
		return nil, failure("cannot show the sign-in page: "+err.Error(), "")
	}
	p.show(about(q)+": in any browser open", q.URL)
	if p.opts.qr {
		p.drawQR(q.URL)
	}
	if p.answersOnStdin() {
		if line, err := p.stdinLine(ctx); err != nil || line != "" {
			return &control.Answer{Value: strings.TrimSpace(line)}, err
		}
	}
	q.Text = "" // it has been said
	return p.typed(ctx, q, "and give the code that the page shows: ", false)
}

// maxTries is how often a choice that is none is asked for again.
const maxTries = 5

// choose asks for one of the question's choices.
func (p *asker) choose(ctx context.Context, q control.Prompt) (*control.Answer, error) {
	if len(q.Choices) == 0 {
		return nil, failure("cannot ask for a choice: there is nothing to choose from", "")
	}
	var b strings.Builder
	if q.Kind == control.PromptConfirm {
		if q.Text == "" {
			q.Text = "a program wants the credentials of " + q.Profile
		}
		b.WriteString(oneLine("keyfob: "+q.Text) + "\n")
		if q.Program != "" && !strings.Contains(q.Text, q.Program) {
			b.WriteString("  " + oneLine(q.Program) + "\n")
		}
	} else {
		b.WriteString(oneLine(about(q)) + "\n")
	}
	for i, c := range q.Choices {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, oneLine(choiceLabel(q.Kind, c)))
	}
	none := ""
	if q.Kind == control.PromptConfirm {
		none = " [no]"
	}
	ask := fmt.Sprintf("1 to %d, or its first letters%s: ", len(q.Choices), none)
	question := b.String() + ask
	for range maxTries {
		typed, err := p.choiceLine(ctx, q, question)
		if errors.Is(err, errNoTerminal) {
			return p.dialog(ctx, q)
		}
		if errors.Is(err, errInputEnded) {
			return refusal(q), nil
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(typed) == "" {
			return refusal(q), nil
		}
		if value, ok := pick(q.Kind, q.Choices, typed); ok {
			return &control.Answer{Value: value}, nil
		}
		question = "that is none of them\n" + ask
	}
	return refusal(q), nil
}

// choiceLine is what was typed. A person's yes is asked for on their
// terminal alone: whatever runs a program could write it to its input.
func (p *asker) choiceLine(ctx context.Context, q control.Prompt, question string) (string, error) {
	if q.Kind != control.PromptConfirm && p.answersOnStdin() {
		if line, err := p.stdinLine(ctx); err != nil || line != "" {
			return line, err
		}
	}
	return askTerminal(ctx, question, true)
}

// refusal is the answer of who chose nothing.
func refusal(q control.Prompt) *control.Answer {
	if q.Kind == control.PromptConfirm {
		for _, c := range q.Choices {
			if c == control.AnswerNo {
				return &control.Answer{Value: c}
			}
		}
	}
	return &control.Answer{Refused: true}
}

func choiceLabel(kind, choice string) string {
	if kind == control.PromptConfirm {
		switch choice {
		case "once":
			return "once: yes, this time"
		case "hour":
			return "hour: yes, for an hour"
		case "always":
			return "always: yes, and do not ask again"
		}
	}
	return choice
}

// pick finds what was typed among choices: a number from 1, a choice, or
// letters with which one alone begins. "y" says as little as it can.
func pick(kind string, choices []string, typed string) (string, bool) {
	typed = strings.ToLower(strings.TrimSpace(typed))
	if n, err := strconv.Atoi(typed); err == nil {
		if n < 1 || n > len(choices) {
			return "", false
		}
		return choices[n-1], true
	}
	if kind == control.PromptConfirm && (typed == "y" || typed == "yes") {
		typed = "once"
	}
	found, hits := "", 0
	for _, c := range choices {
		switch low := strings.ToLower(c); {
		case low == typed:
			return c, true
		case typed != "" && strings.HasPrefix(low, typed):
			found = c
			hits++
		}
	}
	return found, hits == 1
}

package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"keyfob/internal/control"
)

// signinName is the program that asks in a dialog and drives a browser. Its
// requests and answers are in the documentation of package signin.
const signinName = "keyfob-signin"

const (
	signinNobody = 3       // its exit code where nobody can be reached that way
	signinOutput = 1 << 20 // bytes of its answer
	signinGrace  = 3 * time.Second
)

// nobodyError means that keyfob-signin has no way to reach the person.
type nobodyError struct{ why string }

func (e *nobodyError) Error() string { return e.why }

// signinAsk is the request of "ask", signinSAML that of "saml".
type signinAsk struct {
	Kind           string   `json:"kind"`
	Profile        string   `json:"profile"`
	Serial         string   `json:"serial,omitempty"`
	Text           string   `json:"text,omitempty"`
	Error          string   `json:"error,omitempty"`
	Choices        []string `json:"choices,omitempty"`
	TimeoutSeconds int      `json:"timeout_seconds,omitempty"`
}

type signinSAML struct {
	Profile        string   `json:"profile"`
	URL            string   `json:"url"`
	SAMLEndpoint   string   `json:"saml_endpoint"`
	BrowserDir     string   `json:"browser_dir"`
	Headless       bool     `json:"headless,omitempty"`
	BrowserArgs    []string `json:"browser_args,omitempty"`
	TimeoutSeconds int      `json:"timeout_seconds"`
}

// signin runs keyfob-signin with one request and reads its one answer. When
// ctx ends it is told to end, and killed if it does not. Errors: a
// *nobodyError, ctx's, or one that says what it said.
func (a *app) signin(ctx context.Context, command string, request, into any) error {
	program, err := findBeside(signinName)
	if err != nil {
		return &nobodyError{"cannot find " + signinName + ": " + err.Error()}
	}
	in, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var out, said capped
	out.max, said.max = signinOutput, 4<<10
	defer func() { clear(out.b) }() // an answer may be a secret
	cmd := exec.CommandContext(ctx, program, command)
	cmd.Env = unsetenv(a.Environ, "KEYFOB_PASSPHRASE")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &said
	cmd.Cancel = func() error { return endProcess(cmd.Process) }
	cmd.WaitDelay = signinGrace
	err = cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	line, _, _ := strings.Cut(string(said.b), "\n")
	line = strings.TrimPrefix(strings.TrimSpace(line), signinName+": ")
	line = strings.TrimPrefix(line, "cannot "+command+": ")
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == signinNobody:
		return &nobodyError{line}
	case err != nil && line != "":
		return errors.New(line)
	case err != nil:
		return errors.New(signinName + ": " + err.Error())
	case out.over || json.Unmarshal(out.b, into) != nil:
		return errors.New(signinName + " gave no answer") // the decoder's words could quote it
	}
	return nil
}

// capped keeps the first max bytes that are written to it.
type capped struct {
	b    []byte
	max  int
	over bool
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.max-len(c.b))
	c.b = append(c.b, p[:n]...)
	c.over = c.over || n < len(p)
	return len(p), nil
}

// secondsLeft is what ctx leaves for an answer, a little short of it.
func (a *app) secondsLeft(ctx context.Context) int {
	left := a.signInWait()
	if end, ok := ctx.Deadline(); ok {
		left = time.Until(end)
	}
	return max(1, int((left-time.Second)/time.Second))
}

// dialog asks in a window, where there is no terminal.
func (p *asker) dialog(ctx context.Context, q control.Prompt) (*control.Answer, error) {
	if !p.graphical() {
		return nil, noWay(q, "there is no terminal")
	}
	var got struct {
		Value   string `json:"value"`
		Refused bool   `json:"refused"`
	}
	err := p.signin(ctx, "ask", signinAsk{Kind: q.Kind, Profile: q.Profile, Serial: q.Serial, Text: q.Text, Error: q.Error,
		Choices: q.Choices, TimeoutSeconds: p.secondsLeft(ctx)}, &got)
	var nobody *nobodyError
	switch {
	case errors.As(err, &nobody):
		return nil, noWay(q, "there is no terminal, and no dialog ("+nobody.why+")")
	case err != nil:
		return nil, err
	case got.Refused:
		return refusal(q), nil
	case len(q.Choices) > 0:
		if value, ok := pick(q.Kind, q.Choices, got.Value); ok {
			return answer(value), nil
		}
		return refusal(q), nil
	}
	return answer(got.Value), nil
}

// saml has keyfob-signin drive a browser to the identity provider and
// answers the assertion that is posted from there.
func (p *asker) saml(ctx context.Context, q control.Prompt) (*control.Answer, error) {
	failed := func(why string) error {
		return person("cannot sign in to "+q.Profile+": "+why, "keyfob login "+quoted(q.Profile)+" --assertion-file FILE")
	}
	for _, url := range []string{q.URL, q.SAMLEndpoint} {
		if err := checkURL(url); err != nil {
			return nil, failure("cannot open the identity provider's page: "+err.Error(), "")
		}
	}
	s, err := p.settings()
	if err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, s.SignInTimeout)
	defer cancel()
	p.show(about(q) + " in the browser that opens")
	var got struct {
		Assertion string `json:"assertion"`
		Refused   bool   `json:"refused"`
	}
	err = p.signin(limit, "saml", signinSAML{Profile: q.Profile, URL: q.URL, SAMLEndpoint: q.SAMLEndpoint,
		BrowserDir: filepath.Join(s.DataDir, "browser"), Headless: s.BrowserHeadless, BrowserArgs: s.BrowserArgs,
		TimeoutSeconds: p.secondsLeft(limit)}, &got)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limit.Err() != nil:
		return nil, failed("nobody signed in within " + s.SignInTimeout.String())
	case err != nil:
		return nil, failed(err.Error())
	case got.Refused:
		return &control.Answer{Refused: true}, nil
	}
	if _, err := base64.StdEncoding.DecodeString(got.Assertion); err != nil || got.Assertion == "" {
		return nil, failed(signinName + " gave no assertion")
	}
	return &control.Answer{Value: got.Assertion}, nil
}

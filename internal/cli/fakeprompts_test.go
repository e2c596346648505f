//go:build !windows

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyfob/internal/control"
)

// fakePrompts are the questions that the fake daemon asks for the profiles of
// these names.
func fakePrompts() map[string]control.Prompt {
	const page = "https://signin.example/authorize?client=1&state=2"
	return map[string]control.Prompt{
		"p-browser": {Kind: control.PromptBrowser, URL: page},
		"p-file":    {Kind: control.PromptBrowser, URL: "file:///etc/passwd"},
		"p-device":  {Kind: control.PromptDevice, URL: "https://device.example/?user_code=ABCD-EFGH", UserCode: "ABCD-EFGH"},
		"p-slow":    {Kind: control.PromptDevice, URL: "https://device.example/"},
		"p-code":    {Kind: control.PromptCode, URL: page},
		"p-saml":    {Kind: control.PromptSAML, URL: "https://idp.example/login", SAMLEndpoint: "https://signin.aws.amazon.com/saml"},
		"p-confirm": {Kind: control.PromptConfirm, Program: "/usr/bin/terraform", Choices: []string{"once", "hour", "always", "no"}},
		"p-choice":  {Kind: control.PromptChoice, Text: "Which role?", Choices: []string{"arn:aws:iam::1:role/Admin", "arn:aws:iam::1:role/ReadOnly", "other"}},
	}
}

// prompt puts the questions of a profile, and notes the answers in the file
// answers. Of a browser or a device the sign-in is done when there is a file
// "come"; where no browser can be opened, it goes on with a device.
func (d *fake) prompt(s *control.ServerConn, id int, profile string, q control.Prompt) *control.Error {
	ctx, stop := s.Watch(context.Background())
	defer stop()
	for {
		q.Interaction, q.Profile = "i-"+q.Kind, profile
		_ = s.WriteEvent(control.Event{ID: id, Event: control.EventPrompt, Prompt: &q})
		elsewhere := q.Kind == control.PromptBrowser || q.Kind == control.PromptDevice
		waiting, cancel := context.WithCancel(ctx)
		if elsewhere {
			go func() {
				if profile == "p-slow" {
					time.Sleep(2500 * time.Millisecond)
					cancel()
				}
				for waiting.Err() == nil {
					if _, err := os.Stat(filepath.Join(d.dir, "come")); err == nil {
						time.Sleep(500 * time.Millisecond) // a person is not quicker
						cancel()
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
		}
		a, err := s.ReadAnswer(waiting)
		cancel()
		switch {
		case ctx.Err() != nil:
			d.note("answers", "left")
			return &control.Error{Code: control.CodeInteraction, Message: "cannot sign in: nobody answered"}
		case err != nil:
			d.note("answers", "came")
			return nil
		}
		d.note("answers", fmt.Sprintf("%s value=%s refused=%v", a.Interaction, a.Value, a.Refused))
		switch {
		case a.Refused || a.Value == "no":
			return &control.Error{Code: control.CodeInteraction, Message: "cannot sign in to " + profile + ": refused"}
		case a.Value == control.AnswerNoBrowser:
			q = fakePrompts()["p-device"]
			continue
		}
		return nil
	}
}

// fakeAudit answers the audit methods from the file audit (a page after each
// empty line) and the file verify.
func (d *fake) fakeAudit(r control.Request) (any, *control.Error) {
	if r.Method == control.MethodAuditVerify {
		b, err := os.ReadFile(filepath.Join(d.dir, "verify"))
		if err != nil {
			return control.AuditVerifyResult{OK: true, Entries: 3, Files: 2, First: "2026-01-02T03:04:05Z", Last: "2026-01-03T03:04:05Z"}, nil
		}
		return json.RawMessage(b), nil
	}
	var p control.AuditParams
	_ = json.Unmarshal(r.Params, &p)
	b, _ := os.ReadFile(filepath.Join(d.dir, "audit"))
	pages := strings.Split(strings.TrimSpace(string(b)), "\n\n")
	at := 0
	_, _ = fmt.Sscan(p.After, &at)
	out := control.AuditResult{Entries: []json.RawMessage{}}
	for _, line := range strings.Split(pages[at], "\n") {
		if line != "" {
			out.Entries = append(out.Entries, json.RawMessage(line))
		}
	}
	if at+1 < len(pages) {
		out.Next = fmt.Sprint(at + 1)
	}
	if d.mode() == "endless" {
		out.Next = "1"
	}
	return out, nil
}

// fakeSignin is keyfob-signin: it notes its request in $SIGNIN/asked and
// answers with $SIGNIN/answer, or as the files there say.
func fakeSignin() int {
	dir := os.Getenv("SIGNIN")
	request, _ := io.ReadAll(os.Stdin)
	_ = os.WriteFile(filepath.Join(dir, "asked"), []byte(strings.Join(os.Args[1:], " ")+" "+string(request)+"\n"), 0o600)
	if b, err := os.ReadFile(filepath.Join(dir, "code")); err == nil {
		code := 1
		_, _ = fmt.Sscan(string(b), &code)
		fmt.Fprintln(os.Stderr, "keyfob-signin: cannot "+os.Args[1]+": no browser is installed")
		return code
	}
	if _, err := os.Stat(filepath.Join(dir, "hang")); err == nil {
		time.Sleep(time.Minute)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "answer"))
	_, _ = os.Stdout.Write(b)
	return 0
}

// fakeOpener is a browser: it notes its arguments, its streams and whether it
// has a session of its own, and signs in.
func fakeOpener() int {
	data := os.Getenv("DATA")
	args := fmt.Sprintf("%q", os.Args[1:])
	_ = os.WriteFile(filepath.Join(data, "opened"), []byte(args+"\n"+strings.Join(openFiles(), "\n")+fmt.Sprintf("\nleader=%v passphrase=%q\n", sessionLeader(), os.Getenv("KEYFOB_PASSPHRASE"))), 0o600)
	if strings.Contains(args, "--fail") {
		return 4
	}
	_ = os.WriteFile(filepath.Join(data, "come"), nil, 0o600)
	if strings.Contains(args, "--stay") {
		time.Sleep(3 * time.Second) // as browsers do
	}
	return 0
}

package interact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// ErrNobody is in the error of Dialog.Prompt when nothing was shown, because
// the daemon's user has no session in which a dialog could be.
var ErrNobody = errors.New("there is no desktop session to ask in")

// DialogConfig is how a Dialog works. Program is needed.
type DialogConfig struct {
	Program string        // the path of keyfob-signin
	Environ []string      // the daemon's environment, of which a part is passed on; nil for os.Environ()
	Log     *logrus.Entry // nil for none
}

// Dialog is an Answerer that asks in the desktop session of the user who
// runs the daemon. A daemon that serves a whole system must not have one.
type Dialog struct {
	program string
	env     []string
	log     *logrus.Entry
}

// NewDialog returns a Dialog. It starts nothing.
func NewDialog(cfg DialogConfig) *Dialog {
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	return &Dialog{program: cfg.Program, env: sessionEnv(cfg.Environ), log: cfg.Log}
}

// Place is the session: one dialog at a time.
func (d *Dialog) Place() string { return "desktop" }

// dialogRequest is what keyfob-signin ask reads.
type dialogRequest struct {
	Kind    string `json:"kind"`
	Profile string `json:"profile"`
	Serial  string `json:"serial,omitempty"`
	Text    string `json:"text,omitempty"`

	Choices        []string `json:"choices,omitempty"`
	TimeoutSeconds int      `json:"timeout_seconds,omitempty"`
}

// dialogAnswer is what it prints.
type dialogAnswer struct {
	Value   string `json:"value"`
	Refused bool   `json:"refused"`
}

// Prompt asks in a dialog and waits. When ctx ends, the dialog goes. Errors:
// ErrRefused; the context's; one with ErrNobody when nothing could be shown;
// others when the program failed.
func (d *Dialog) Prompt(ctx context.Context, p Pending) (cred.Secret, error) {
	request := dialogRequest{Kind: p.Kind, Profile: p.Profile, Serial: p.Question.Serial, Text: p.Question.Text, Choices: p.Question.Choices}
	if end, ok := ctx.Deadline(); ok {
		// A little later than ours: only where we are killed it matters.
		request.TimeoutSeconds = int(time.Until(end).Seconds()) + 2
	}
	in, err := json.Marshal(request)
	if err != nil {
		return cred.Secret{}, err
	}
	out, stderr, err := runSignin(ctx, d.program, d.env, in, "ask")
	defer clear(out)
	if ctx.Err() != nil {
		return cred.Secret{}, ctx.Err()
	}
	var exit *signinExit
	switch {
	case errors.As(err, &exit) && exit.code == signinNobody:
		return cred.Secret{}, fmt.Errorf("%w: %s", ErrNobody, firstLine(stderr))
	case err != nil:
		if line := firstLine(stderr); line != "" {
			err = fmt.Errorf("cannot show a dialog: %s", line)
		}
		if d.log != nil {
			d.log.WithError(err).WithField("interaction", p.ID).Warn("a question was not asked in a dialog")
		}
		return cred.Secret{}, err
	}
	var answer dialogAnswer
	if json.Unmarshal(out, &answer) != nil {
		return cred.Secret{}, fmt.Errorf("cannot show a dialog: %s gave no answer", SigninName)
	}
	if answer.Refused || answer.Value == "" {
		return cred.Secret{}, ErrRefused
	}
	return cred.NewSecret(answer.Value), nil
}

package process

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/source/command"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// unknownLife is assumed of a session whose end the program does not tell,
// as it is of a session token in a file.
const unknownLife = time.Hour

// sessionSeconds is the length of the session that long-lived keys become.
const sessionSeconds = 43200

// Deps is what the sources of this package work with.
type Deps struct {
	Run *command.Runner
	// Skew is AWS's clock minus ours as far as it is known; nil is 0.
	Skew func() time.Duration
	// STS makes a session of long-lived keys that would be handed out.
	STS sts.Deps
	Log *logrus.Entry // nil for none
}

type source struct {
	link    profiles.Link
	d       Deps
	name    string // of the program in errors: "credential_process (FILE:LINE)"
	endless sync.Once
}

// New returns the source of a process link. It runs nothing. Errors (Is
// cred.ErrConfig): no line to run, another kind of link.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	switch {
	case link.Kind != profiles.KindProcess:
		return nil, fmt.Errorf("cannot use profile %s: a link of kind %s is none of package process: %w", link.Profile, link.Kind, cred.ErrConfig)
	case link.Params["credential_process"] == "":
		return nil, fmt.Errorf("cannot use profile %s: its credential_process is empty: %w", link.Profile, cred.ErrConfig)
	case d.Run == nil:
		return nil, fmt.Errorf("cannot use profile %s: programs are not run here: %w", link.Profile, cred.ErrConfig)
	}
	s := &source{link: link, d: d, name: "credential_process"}
	if link.Origin.File != "" {
		s.name += " (" + link.Origin.File + ":" + strconv.Itoa(link.Origin.Line) + ")"
	}
	return s, nil
}

func (s *source) Interactive() bool { return false }

// Limit is how long a Fetch may take: programs have a limit of their own
// (setting process_timeout), to which a call of STS is added where it makes
// one.
func (s *source) Limit() time.Duration {
	if s.handsOut() {
		return s.d.Run.Timeout() + cred.FetchTimeout
	}
	return s.d.Run.Timeout()
}

// Upstream is empty: each line is an upstream of its own.
func (s *source) Upstream() string { return "" }

func (s *source) handsOut() bool { return s.link.Params["hand_out"] != "" }

// Fetch runs the line once. Errors: *cred.UpstreamError, Refused where the
// program is not there or prints something else than credentials; the
// context's when that was cancelled.
func (s *source) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	out, err := s.d.Run.Run(ctx, command.Program{Name: s.name, Line: s.link.Params["credential_process"]})
	if err != nil {
		return cred.Credentials{}, s.failed(err)
	}
	now := time.Now()
	if s.d.Skew != nil {
		now = now.Add(s.d.Skew())
	}
	a, err := parse(out, now)
	if err != nil {
		return cred.Credentials{}, s.wrong(err)
	}
	if a.note != "" && s.d.Log != nil {
		s.d.Log.WithField(logging.Profile, s.link.Profile).WithField("program", s.name).Warn(a.note)
	}
	c := a.Credentials
	switch {
	case !c.SessionToken.IsZero() && c.Expires.IsZero():
		c.Expires = now.Add(unknownLife).UTC()
		s.endless.Do(func() {
			if s.d.Log != nil {
				s.d.Log.WithField(logging.Profile, s.link.Profile).WithField("program", s.name).
					Info("a session without Expiration is taken for an hour")
			}
		})
	case c.SessionToken.IsZero() && s.handsOut():
		return s.session(ctx, in, c)
	}
	return c, nil
}

// session makes a session of long-lived keys.
func (s *source) session(ctx context.Context, in cred.Input, keys cred.Credentials) (cred.Credentials, error) {
	keys.Expires = time.Time{}
	src, err := sts.New(profiles.Link{
		Kind: profiles.KindSessionToken, Profile: s.link.Profile, Origin: s.link.Origin, Client: s.link.Client,
		Params: map[string]string{"duration_seconds": strconv.Itoa(sessionSeconds)},
	}, s.d.STS)
	if err != nil {
		return cred.Credentials{}, err
	}
	in.Base = keys
	return src.Fetch(ctx, in)
}

func (s *source) failed(err error) error {
	var e *command.Error
	if !errors.As(err, &e) {
		return err
	}
	u := &cred.UpstreamError{
		Op: "credential_process", Target: s.link.Profile, Err: err,
		Message: "cannot get credentials for profile " + s.link.Profile + ": its " + e.Error(),
		Help:    "run its line by hand as the user of keyfobd; with log.level = debug, keyfobd logs what it writes to standard error",
	}
	switch e.Reason {
	case command.NotFound:
		u.Refused = true
		u.Help = "correct the line, or PATH in the environment of keyfobd: ~ and $HOME are expanded by the shell only where they stand outside quotes"
	case command.TooMuch:
		u.Refused = true
		u.Help = "a credential_process prints one JSON object and nothing else"
	case command.TimedOut:
		u.Help = "it must not ask anybody: it has no terminal; process_timeout (KEYFOB_PROCESS_TIMEOUT) gives it more time"
	}
	return u
}

// wrong is an answer that can't be used.
func (s *source) wrong(err error) error {
	u := &cred.UpstreamError{
		Op: "credential_process", Target: s.link.Profile,
		Message: "cannot get credentials for profile " + s.link.Profile + ": its " + s.name + " " + err.Error(),
		Help:    cred.HintOf(err),
		Refused: !errors.Is(err, errExpired),
	}
	if s.d.Skew != nil {
		u.Skew = s.d.Skew()
	}
	return u
}

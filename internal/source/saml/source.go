package saml

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/source/command"
	"keyfob/profiles"
)

// Deps is what the sources of this package work with. Commands may be left
// out where no profile has a saml_process.
type Deps struct {
	// Pool shares connections and clock offsets between all sources of a
	// daemon; nil makes one for each source.
	Pool *awsclient.Pool
	// Commands runs saml_process.
	Commands *command.Runner
	// Skew is told AWS's clock minus ours after each answer that shows it,
	// 0 when they agree within a minute. It is called before Fetch returns.
	Skew func(d time.Duration)
	Log  *logrus.Entry // nil for none
}

// The limits of a role's session, in seconds
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithSAML.html).
const (
	minDuration     = 900
	maxDuration     = 43200
	defaultDuration = 3600
)

type source struct {
	link     profiles.Link
	d        Deps
	role     string // "" is asked for where the assertion offers several
	provider string // "" for whichever comes with the role
	duration int32  // 0 for the assertion's
	to       addressee
}

// New returns the source of a saml link. It opens nothing. Errors (Is
// cred.ErrConfig): a parameter that no call could be made with, another kind
// of link.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	if link.Kind != profiles.KindSAML {
		return nil, unusable(link.Profile, "a link of kind "+string(link.Kind)+" is none of package saml", "")
	}
	if d.Pool == nil {
		d.Pool = awsclient.NewPool(awsclient.PoolConfig{})
	}
	s := &source{link: link, d: d, role: link.Params["role_arn"], provider: link.Params["principal_arn"]}
	if s.role == "" {
		s.role = link.RoleARN
	}
	if s.role != "" && !isRole(s.role) {
		return nil, unusable(link.Profile, "role_arn = "+strconv.Quote(s.role)+" is not the ARN of a role", "arn:aws:iam::ACCOUNT:role/NAME")
	}
	if s.provider != "" && !isProvider(s.provider) {
		return nil, unusable(link.Profile, "principal_arn = "+strconv.Quote(s.provider)+" is not the ARN of a SAML provider", "arn:aws:iam::ACCOUNT:saml-provider/NAME")
	}
	if s.role != "" && s.provider != "" && (accountOf(s.role) != accountOf(s.provider) || field(s.role, 1) != field(s.provider, 1)) {
		return nil, unusable(link.Profile, "role_arn and principal_arn are in two accounts", "the SAML provider must be in the role's account")
	}
	if text := link.Params["duration_seconds"]; text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n <= 0 {
			return nil, unusable(link.Profile, "duration_seconds = "+strconv.Quote(text)+" is no number of seconds", "")
		}
		s.duration = int32(n)
	}
	if link.Params["session_policy"] == "" { // what stands in a file is read at each fetch
		if _, _, err := s.policy(); err != nil {
			return nil, err
		}
	}
	return s, s.place()
}

// place finds out for whom assertions must be.
func (s *source) place() error {
	partition := ofRegion(s.link.Client.Region)
	for _, arn := range []string{s.role, s.provider} {
		if arn == "" {
			continue
		}
		ofARN := field(arn, 1)
		if partition != "" && ofARN != partition && s.link.Client.EndpointURL["sts"] == "" && s.link.Client.EndpointURL[""] == "" {
			return unusable(s.link.Profile, fmt.Sprintf("%s is in partition %s, and region %s in %s", arn, ofARN, s.link.Client.Region, partition), "correct region or the ARN")
		}
		partition = ofARN
	}
	s.to = addresseeOf(s.link.Client, partition)
	if s.link.Params["saml_process"] != "" {
		if s.d.Commands == nil {
			return unusable(s.link.Profile, "nothing runs its saml_process", "")
		}
		return nil
	}
	u, err := url.Parse(s.link.Params["saml_url"])
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return unusable(s.link.Profile, "saml_url is not a web address", "the identity provider's page for AWS, such as https://idp.example.com/app/aws")
	}
	if s.to.endpoint == "" {
		return unusable(s.link.Profile, "it is not known where identity providers post to in partition "+partition, "name it: endpoint_url of service signin")
	}
	return nil
}

// Interactive: at a saml_url a person signs in. saml_process needs none,
// unless one of several roles has to be chosen each time.
func (s *source) Interactive() bool {
	return s.link.Params["saml_process"] == "" || s.role == ""
}

// Upstream names the STS endpoint, "" where the settings give none.
func (s *source) Upstream() string {
	u, err := awsclient.STSEndpoint(context.Background(), s.link.Client)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Reach tells whether STS can be connected to.
func (s *source) Reach(ctx context.Context) error {
	u, err := awsclient.STSEndpoint(ctx, s.link.Client)
	if err != nil {
		return &settingsError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	return s.d.Pool.Reach(ctx, u)
}

// Fetch gets an assertion and trades it, in one HTTP request.
func (s *source) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	x := &exchange{source: s, in: in, said: &response{}}
	var err error
	// What is wrong with the settings is said before a person signs in.
	if x.policyText, x.policyARNs, err = s.policy(); err != nil {
		return cred.Credentials{}, err
	}
	if _, err := awsclient.STSEndpoint(ctx, s.link.Client); err != nil {
		return cred.Credentials{}, x.failed(err)
	}
	text, err := x.obtain(ctx)
	if err != nil {
		return cred.Credentials{}, err
	}
	if x.said, err = read(text.Reveal()); err != nil {
		x.said = &response{}
		return cred.Credentials{}, x.wrong(err.Error(), x.wherefrom(), x.from == fromProcess)
	}
	if err := x.judge(); err != nil {
		return cred.Credentials{}, err
	}
	if x.grant, err = x.choose(ctx); err != nil {
		return cred.Credentials{}, err
	}
	return x.assume(ctx)
}

// settingsError is a profile that can't be used as it is written.
type settingsError struct {
	msg, help string
	err       error
}

func (e *settingsError) Error() string        { return e.msg }
func (e *settingsError) Hint() string         { return e.help }
func (e *settingsError) Unwrap() error        { return e.err }
func (e *settingsError) Is(target error) bool { return target == cred.ErrConfig }

func unusable(profile, why, help string) error {
	return &settingsError{msg: "cannot use profile " + profile + ": " + why, help: help}
}

// obtain gets the assertion, as base64 or XML.
func (x *exchange) obtain(ctx context.Context) (cred.Secret, error) {
	profile := x.link.Profile
	if given := x.in.Signin; given != nil && !given.Assertion.IsZero() {
		x.from = fromFile
		return given.Assertion, nil
	}
	if line := x.link.Params["saml_process"]; line != "" {
		x.from = fromProcess
		out, err := x.d.Commands.Run(ctx, command.Program{Name: "saml_process of profile " + profile, Line: line})
		if err != nil && !errors.Is(err, context.Canceled) {
			return out, &cred.UpstreamError{Op: opAssume, Target: x.role, Err: err,
				Message: "cannot get an assertion: " + err.Error(), Help: "run the command by hand: it must print the SAMLResponse that the identity provider posts, and nothing else"}
		}
		return out, err
	}
	x.from = fromBrowser
	return x.in.Ask.Ask(ctx, x.in.Key, cred.Question{Kind: cred.AskSAML, Profile: x.in.Profile, Text: "sign in for profile " + x.in.Profile,
		URL: x.link.Params["saml_url"], SAMLEndpoint: x.to.endpoint})
}

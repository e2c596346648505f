package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// What AWS takes as the length of a console session
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_enable-console-custom-url.html)
// and of a federated user's
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html).
const (
	minConsole   = 15 * time.Minute
	maxConsole   = 12 * time.Hour
	maxFederates = 36 * time.Hour
)

// shortConsole is what is left of a session that a person should be told of
// before it ends in the middle of their work.
const shortConsole = 15 * time.Minute

// ConsoleRequest asks for a sign-in to the console.
type ConsoleRequest struct {
	Profile string
	Chain   []profiles.Link // of the profile, as the broker resolved it
	Region  string          // of the page, "" for the one that the person had last
	Service string          // short name of a service, or a path; "" for the start page
	// Duration of the console session, 0 for AWS's default: the life of the
	// role's credentials, twelve hours for a user.
	Duration time.Duration
	// Credentials are what the profile hands out.
	Credentials cred.Credentials
	// Keys reads the long-lived pair at the base of the chain. It is called
	// only where IsUser says so.
	Keys func(ctx context.Context) (cred.Credentials, error)
	// Policy narrows the session of a user (IsUser). That of a role is in its
	// credentials already.
	Policy cred.SessionPolicy
	// Person names the person in CloudTrail where a user's session is made,
	// as PersonName has it; "" for ThisPerson.
	Person string
}

// ConsoleLink is a sign-in to the console.
type ConsoleLink struct {
	// URL signs in whoever opens it within 15 minutes.
	URL cred.Secret
	// SwitchRole holds no credentials: it is for a person who is signed in
	// to the console already. "" where the profile does not end in AssumeRole.
	SwitchRole string
	// AccessKeyID is that of the credentials which the console session is made
	// of, as CloudTrail knows them: for a user they are not those of the profile.
	AccessKeyID string
	Ends        time.Time // of the console session, as far as it is known
	Warning     string    // "" for none
}

// Console makes a URL that is signed in to the console as the profile. Errors:
// those that Is ErrInput, before any call; *cred.UpstreamError; an error of
// Keys; and one with a hint for a user with an MFA code, whom AWS lets in no
// way that keeps the code. None of them, and no log line, holds the URL or
// its token.
func (d Deps) Console(ctx context.Context, r ConsoleRequest) (ConsoleLink, error) {
	if len(r.Chain) == 0 {
		return ConsoleLink{}, fmt.Errorf("cannot open the console: profile %s has no credentials", r.Profile)
	}
	s, err := consoleSite(ctx, r.Chain, r.Region)
	if err != nil {
		return ConsoleLink{}, err
	}
	destination, err := s.page(r.Service, r.Region)
	if err != nil {
		return ConsoleLink{}, err
	}
	if err := r.check(); err != nil {
		return ConsoleLink{}, err
	}
	address, err := d.federation(s)
	if err != nil {
		return ConsoleLink{}, err
	}
	pool, done := d.pool()
	defer done()
	d.Pool = pool

	session, asked := r.Credentials, r.Duration
	var out ConsoleLink
	switch {
	case IsUser(r.Chain):
		if session, err = d.federate(ctx, r); err != nil {
			return ConsoleLink{}, err
		}
		asked = 0 // GetFederationToken's DurationSeconds rules
	case chained(r.Chain):
		if asked > 0 {
			out.Warning = noDuration(session.Expires, "for a role that was assumed with another session (role chaining)")
		}
		asked = 0
	}
	token, err := d.signinToken(ctx, address, r, session, asked)
	var refused *refusedError
	if asked > 0 && errors.As(err, &refused) {
		// Some kinds of credentials take none, and nothing tells which they
		// are before.
		if token, err = d.signinToken(ctx, address, r, session, 0); err == nil {
			out.Warning = noDuration(session.Expires, "for these credentials")
		}
		asked = 0
	}
	if errors.As(err, &refused) {
		return ConsoleLink{}, refusal(r, address)
	}
	if err != nil {
		return ConsoleLink{}, err
	}
	out.AccessKeyID, out.Ends = session.AccessKeyID, session.Expires
	if asked > 0 {
		out.Ends = time.Now().Add(asked)
	} else if left := time.Until(out.Ends); out.Warning == "" && !out.Ends.IsZero() && left < shortConsole {
		out.Warning = fmt.Sprintf("the console session ends in %s, with the credentials that it was made of", left.Round(time.Second))
	}
	out.URL = cred.NewSecret(address.String() + "?" + url.Values{
		"Action":      {"login"},
		"Issuer":      {"keyfob"},
		"Destination": {destination},
		"SigninToken": {token.Reveal()},
	}.Encode())
	out.SwitchRole = switchRole(address, r)
	return out, nil
}

func noDuration(ends time.Time, why string) string {
	text := "AWS takes no duration " + why + ": the console session ends with its credentials"
	if !ends.IsZero() {
		text += ", at " + ends.UTC().Format(time.RFC3339)
	}
	return text
}

// check refuses what AWS would, in better words.
func (r ConsoleRequest) check() error {
	user, longest := IsUser(r.Chain), maxConsole
	if user {
		longest = maxFederates
	}
	switch {
	case r.Duration != 0 && (r.Duration < minConsole || r.Duration > longest):
		return &inputError{fmt.Sprintf("cannot open the console for %s: a session lasts %s to %s", hours(r.Duration), hours(minConsole), hours(longest)),
			"--duration " + hours(max(minConsole, min(r.Duration, longest)))}
	case user && codeOf(r.Chain) != "":
		return cred.WithHint(fmt.Errorf("cannot open the console as %s: its session with the code of the MFA device %s is one of GetSessionToken, which the console does not take, and what it takes of a user's keys would be without the code",
			r.Profile, codeOf(r.Chain)),
			"use a profile with role_arn and source_profile = "+r.Profile+": the code counts for the role")
	case !user && (r.Policy.Inline != "" || len(r.Policy.ARNs) > 0):
		return fmt.Errorf("cannot open the console as %s: its session can't be narrowed any more", r.Profile)
	}
	return nil
}

// hours writes a duration as people do: 12h, 90m0s as 1h30m.
func hours(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// chained reports whether the chain is known to end in a role that was
// assumed with temporary credentials.
func chained(chain []profiles.Link) bool {
	n := len(chain)
	if chain[n-1].Kind != profiles.KindAssumeRole || n < 2 {
		return false
	}
	switch below := chain[n-2]; below.Kind {
	case profiles.KindProcess:
		return false // what a process gives is unknown
	case profiles.KindStaticKeys, profiles.KindEnvironmentKeys:
		return !LongLived(chain)
	}
	return true
}

// federation is the address that sign-in tokens come from.
func (d Deps) federation(s site) (*url.URL, error) {
	if d.Federation == "" {
		return &url.URL{Scheme: "https", Host: s.signin, Path: "/federation"}, nil
	}
	u, err := url.Parse(d.Federation)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, cred.WithHint(errors.New("cannot use console.federation_endpoint: it is no full URL"), "https://signin.aws.amazon.com/federation, for one")
	}
	return u, nil
}

// refusedError: the federation address understood and said no. It does not
// say why.
type refusedError struct{ status int }

func (e *refusedError) Error() string { return fmt.Sprintf("HTTP %d", e.status) }

// signinToken exchanges credentials for a token that opens the console. They
// travel in the body: addresses are logged by proxies.
func (d Deps) signinToken(ctx context.Context, address *url.URL, r ConsoleRequest, c cred.Credentials, duration time.Duration) (cred.Secret, error) {
	const op, what = "getSigninToken", "sign in to the console"
	var seen awsclient.Seen
	ctx, cancel := bounded(ctx)
	defer cancel()
	settings := r.Chain[len(r.Chain)-1].Client
	// Of the profile's settings the CA bundle counts. AWS_ENDPOINT_URL is
	// about AWS's APIs, of which this is none.
	cfg, err := awsclient.Config(ctx, profiles.Client{Region: settings.Region, CABundle: settings.CABundle}, nil, awsclient.Options{Pool: d.Pool, Seen: &seen})
	if err != nil {
		return cred.Secret{}, failed(op, what, c, err, &seen)
	}
	session, err := json.Marshal(map[string]string{"sessionId": c.AccessKeyID, "sessionKey": c.SecretAccessKey.Reveal(), "sessionToken": c.SessionToken.Reveal()})
	if err != nil { // strings always marshal
		return cred.Secret{}, errors.New("cannot sign in to the console: the credentials can't be encoded")
	}
	form := url.Values{"Action": {"getSigninToken"}, "Session": {string(session)}}
	if duration > 0 {
		form.Set("SessionDuration", strconv.Itoa(int(duration/time.Second)))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot sign in to the console: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "keyfob")
	resp, err := cfg.HTTPClient.Do(req)
	d.tellSkew(&seen)
	if err != nil {
		return cred.Secret{}, failed(op, what, c, err, &seen)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return cred.Secret{}, failed(op, what, c, err, &seen)
	}
	defer clear(body)
	var answer struct{ SigninToken string }
	switch {
	case resp.StatusCode == http.StatusBadRequest, resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnauthorized:
		return cred.Secret{}, &refusedError{resp.StatusCode}
	case resp.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.SigninToken == "":
		return cred.Secret{}, failed(op, what, c, errors.New("no sign-in token in the answer"), &seen)
	}
	return cred.NewSecret(answer.SigninToken), nil
}

// refusal says why the federation address most likely said no: it does not
// tell by itself.
func refusal(r ConsoleRequest, address *url.URL) error {
	e := &cred.UpstreamError{Op: "getSigninToken", Target: r.Profile, Status: http.StatusBadRequest, Refused: true}
	why := "AWS does not take its credentials at " + address.Host
	e.Help = "keyfob whoami " + r.Profile + " shows whether they are good; they must be of the partition that " + address.Host + " serves"
	switch last := r.Chain[len(r.Chain)-1]; last.Kind {
	case profiles.KindLogin:
		why += ": those of an aws login session open no console"
		e.Help = "sign in with the browser, or use a profile with role_arn and source_profile = " + r.Profile
	case profiles.KindStaticKeys, profiles.KindEnvironmentKeys, profiles.KindProcess:
		why += ": they may be of GetSessionToken, which opens no console"
		e.Help = "use a profile with role_arn and source_profile = " + r.Profile
	}
	e.Message = "cannot open the console as " + r.Profile + ": " + why
	return e
}

// SwitchRole is ConsoleLink.SwitchRole alone, for which no credentials are
// needed: r.Profile, Chain and Region count.
func (d Deps) SwitchRole(ctx context.Context, r ConsoleRequest) (string, error) {
	if len(r.Chain) == 0 {
		return "", fmt.Errorf("cannot make a link: profile %s has no credentials", r.Profile)
	}
	s, err := consoleSite(ctx, r.Chain, r.Region)
	if err != nil {
		return "", err
	}
	address, err := d.federation(s)
	if err != nil {
		return "", err
	}
	return switchRole(address, r), nil
}

// maxDisplay is what the console shows of a switched role's name.
const maxDisplay = 64

// switchRole is the address where a person who is signed in takes the role of
// the profile.
func switchRole(address *url.URL, r ConsoleRequest) string {
	last := r.Chain[len(r.Chain)-1]
	arn := strings.SplitN(last.RoleARN, ":", 6)
	if last.Kind != profiles.KindAssumeRole || len(arn) != 6 {
		return ""
	}
	name, ok := strings.CutPrefix(arn[5], "role/")
	if !ok {
		return ""
	}
	display := r.Profile
	if len(display) > maxDisplay {
		display = strings.ToValidUTF8(display[:maxDisplay], "")
	}
	u := url.URL{Scheme: address.Scheme, Host: address.Host, Path: "/switchrole",
		RawQuery: url.Values{"account": {arn[4]}, "roleName": {name}, "displayName": {display}}.Encode()}
	return u.String()
}

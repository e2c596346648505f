//go:build !windows

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/control"
	"keyfob/internal/fakeaws"
)

// answer is what a caller got for one question: credentials, or err.
type answer struct {
	Kind       string    `json:"kind"`    // of the caller
	Profile    string    `json:"profile"` // whose credentials it wants
	Asked, Got time.Time // the question, the answer
	ID         string    `json:"id"`
	Secret     string    `json:"secret"`
	Token      string    `json:"token"`
	Expires    time.Time `json:"expires"` // as advertised
	Status     int       `json:"status"`  // of HTTP, or the exit code; 0 for none
	Since      time.Time `json:"since"`   // when the caller asked for the IMDSv2 token that it showed
	Err        string    `json:"err"`     // "" for credentials
}

// caller is one client of keyfob. ask is called by one goroutine.
type caller interface {
	ask() answer
}

// keys is what the three documents have in common: those of the metadata
// and container endpoints say Token, credential_process says SessionToken.
type keys struct {
	Code                         string
	AccessKeyId, SecretAccessKey string //nolint:revive // the names of the wire form
	Token, SessionToken          string
	Expiration                   time.Time
}

// take makes an answer's credentials of a document.
func (a *answer) take(doc []byte) {
	var k keys
	err := json.Unmarshal(doc, &k)
	switch {
	case err != nil:
		a.Err = "no document: " + err.Error()
	case k.Code != "" && k.Code != "Success":
		a.Err = "the document says " + k.Code
	case k.AccessKeyId == "" || k.SecretAccessKey == "" || k.Token+k.SessionToken == "" || k.Expiration.IsZero():
		a.Err = "half a document"
	}
	a.ID, a.Secret, a.Token, a.Expires = k.AccessKeyId, k.SecretAccessKey, k.Token+k.SessionToken, k.Expiration
}

// httpClient is a client with connections of its own, kept or one for each
// request.
func httpClient(kept bool) *http.Client {
	return &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: !kept, MaxIdleConnsPerHost: 1}}
}

// fetch makes one HTTP request.
func fetch(c *http.Client, method, url, header, value string) (int, []byte, error) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set(header, value)
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// statusText is what an answer of another status says, in one line. EC2's
// page for a status says no more than the status.
func statusText(status int, body []byte) string {
	if bytes.HasPrefix(body, []byte("<?xml")) {
		return fmt.Sprint(status)
	}
	return fmt.Sprintf("%d %.150s", status, strings.Join(strings.Fields(string(body)), " "))
}

// metadataCaller is an IMDSv2 client that keeps its token as SDKs do, until
// it is refused; or, if it is stubborn, whatever happens.
type metadataCaller struct {
	url    string // of the endpoint, without a slash at the end
	role   string
	client *http.Client
	kind   string

	profile  string // of the endpoint
	stubborn bool
	token    string
	since    time.Time // when it was asked for
}

func (m *metadataCaller) ask() (a answer) {
	a = answer{Kind: m.kind, Profile: m.profile, Asked: time.Now()}
	defer func() { a.Got, a.Since = time.Now(), m.since }()
	if m.token == "" {
		m.since = a.Asked
		status, body, err := fetch(m.client, "PUT", m.url+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "21600")
		if a.Status = status; err != nil || status != http.StatusOK {
			a.Err = fmt.Sprintf("token: %d %v", status, err)
			return a
		}
		m.token = string(body)
	}
	status, body, err := fetch(m.client, "GET", m.url+"/latest/meta-data/iam/security-credentials/"+m.role, "X-aws-ec2-metadata-token", m.token)
	switch a.Status = status; {
	case err != nil:
		a.Err = err.Error()
	case status != http.StatusOK:
		a.Err = statusText(status, body)
		if status == http.StatusUnauthorized && !m.stubborn {
			m.token = ""
		}
	default:
		a.take(body)
	}
	return a
}

// containerCaller is a client of the container endpoint, which reads its
// token's file for each question.
type containerCaller struct {
	url, tokenFile string
	client         *http.Client
	kind, profile  string
}

func (c *containerCaller) ask() (a answer) {
	a = answer{Kind: c.kind, Profile: c.profile, Asked: time.Now()}
	defer func() { a.Got = time.Now() }()
	token, err := os.ReadFile(c.tokenFile)
	if err != nil {
		a.Err = err.Error()
		return a
	}
	status, body, err := fetch(c.client, "GET", c.url, "Authorization", string(token))
	switch a.Status = status; {
	case err != nil:
		a.Err = err.Error()
	case status != http.StatusOK:
		a.Err = statusText(status, body)
	default:
		a.take(body)
	}
	return a
}

// controlCaller asks on the control socket, over one connection or a new one
// each time. It starts no daemon.
type controlCaller struct {
	socket string
	params control.CredentialsParams
	kept   bool
	client *control.Client
	kind   string
}

func (c *controlCaller) ask() (a answer) {
	a = answer{Kind: c.kind, Profile: c.params.Profile, Asked: time.Now()}
	defer func() { a.Got = time.Now() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if c.client == nil {
		if c.client, err = control.Dial(ctx, c.socket); err != nil {
			a.Err = err.Error()
			return a
		}
	}
	var doc json.RawMessage
	err = c.client.Call(ctx, control.MethodCredentials, c.params, &doc, nil)
	var said *control.Error
	if !c.kept || err != nil && !errors.As(err, &said) {
		_ = c.client.Close()
		c.client = nil
	}
	if err != nil {
		a.Err = err.Error()
		return a
	}
	a.take(doc)
	return a
}

// processCaller runs keyfob credential-process.
type processCaller struct {
	w       *world
	profile string
	kind    string
}

func (p *processCaller) ask() (a answer) {
	a = answer{Kind: p.kind, Profile: p.profile, Asked: time.Now()}
	defer func() { a.Got = time.Now() }()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "keyfob"), "credential-process", "--profile", p.profile)
	cmd.Env, cmd.Dir, cmd.WaitDelay = p.w.environ(), p.w.home, 5*time.Second
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	if cmd.ProcessState != nil {
		a.Status = cmd.ProcessState.ExitCode()
	}
	if err == nil {
		a.take(out.Bytes())
		return a
	}
	a.Err = errb.String()
	lines := strings.Split(strings.TrimRight(a.Err, "\n"), "\n")
	if out.Len() > 0 || !strings.HasPrefix(lines[0], "keyfob: cannot ") || len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
		a.Err = fmt.Sprintf("%s: %v, standard output %q, standard error %q", notClean, err, out.String(), errb.String())
	}
	return a
}

// notClean begins the error of a command that failed in another form than
// one line and a hint.
const notClean = "failed without a clean word"

// ledger is AWS's own record of what it issued.
type ledger struct {
	aws *fakeaws.Server

	mu     sync.Mutex // guards what follows
	byID   map[string]issued
	byRole map[string][]issued // oldest first
}

// issued is one session.
type issued struct {
	id, role    string // role is the ARN, "" for a user's own session
	at, expires time.Time
}

func newLedger(aws *fakeaws.Server) *ledger {
	return &ledger{aws: aws, byID: map[string]issued{}, byRole: map[string][]issued{}}
}

// read takes in what was issued since. fakeaws forgets, the ledger does not.
func (l *ledger) read() {
	calls := l.aws.Calls("AssumeRole", "GetSessionToken")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range calls {
		if c.Issued == "" || c.Expires == nil {
			continue
		}
		if _, known := l.byID[c.Issued]; known {
			continue
		}
		s := issued{id: c.Issued, role: c.Params["RoleArn"], at: c.Time, expires: *c.Expires}
		l.byID[s.id] = s
		l.byRole[s.role] = append(l.byRole[s.role], s)
	}
}

func (l *ledger) find(id string) (issued, bool) {
	l.mu.Lock()
	s, ok := l.byID[id]
	l.mu.Unlock()
	if ok {
		return s, true
	}
	l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok = l.byID[id]
	return s, ok
}

// of returns the sessions of a role, oldest first.
func (l *ledger) of(role string) []issued {
	l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.byRole[role])
}

// prompt is how fast an answer must have been for its credentials to be
// judged by the time at which it was read: a slow one may have been handed
// out long before.
const prompt = 300 * time.Millisecond

// wrong says what is wrong with an answer that holds credentials: they must
// be a session of the role that AWS issued, tell its end (a minute early
// where it lives long), and have been good when they were handed out.
func (l *ledger) wrong(a answer, role string) error {
	s, ok := l.find(a.ID)
	switch {
	case !ok:
		return fmt.Errorf("%s got %s, which AWS never issued", a.Kind, a.ID)
	case s.role != role:
		return fmt.Errorf("%s got a session of %s, not of %s", a.Kind, s.role, role)
	}
	early := s.expires.Sub(a.Expires)
	if early != 0 && (early != time.Minute || s.expires.Sub(s.at) < 2*time.Minute-time.Second) {
		return fmt.Errorf("%s was told that %s ends %v before its end", a.Kind, a.ID, early)
	}
	if !s.expires.After(a.Asked) || a.Got.Sub(a.Asked) < prompt && !s.expires.After(a.Got) {
		return fmt.Errorf("%s asked at %s and got %s, which ended at %s", a.Kind, clock(a.Asked), a.ID, clock(s.expires))
	}
	return nil
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// identity asks AWS who an answer's credentials are. A nil error means that
// AWS took them; what is found after their end says nothing.
func identity(url string, a answer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := sts.New(sts.Options{
		Region: "eu-west-1", BaseEndpoint: &url, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(a.ID, a.Secret, a.Token),
	})
	_, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil && a.Expires.After(time.Now()) {
		return fmt.Errorf("AWS refuses what %s got: %w", a.Kind, err)
	}
	return nil
}

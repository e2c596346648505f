package fakeaws

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// consoleRoom is the console's federation address, as the IAM user guide's
// "Enable custom identity broker access to the console" has it.
var consoleRoom = func() *service {
	r := restRoom("federation", pageFailure, &apiError{status: 429, code: "Throttling", message: "Rate exceeded"},
		route{"", "/federation", "Federation", action{run: federation, unsigned: true}},
		route{"GET", "/switchrole", "SwitchRole", action{run: switchRolePage, unsigned: true}},
	)
	// The actions are told by the parameter Action.
	r.actions["GetSigninToken"] = action{run: getSigninToken, unsigned: true}
	r.actions["ConsoleLogin"] = action{run: consoleLogin, unsigned: true}
	byPath := r.match
	r.match = func(q *request) (string, bool) {
		name, ok := byPath(q)
		if name == "Federation" {
			switch q.params.Get("Action") {
			case "getSigninToken":
				name = "GetSigninToken"
			case "login":
				name = "ConsoleLogin"
			}
		}
		return name, ok
	}
	return r
}()

// consoleState is the federation address's memory. Server.mu guards it.
type consoleState struct {
	tokens map[string]*signinToken
}

type signinToken struct {
	arn, account, partition string
	made, until             time.Time // until: the end of the console session
}

func federation(*Server, *request) (any, error) {
	return nil, badOAuth("BadRequest", "Invalid action")
}

func badConsole(text string) error { return badOAuth("BadRequest", "%s", text) }

// consolePartition is the partition of a sign-in host, "" for an address that
// is none of AWS's.
func consolePartition(host string) string {
	host, _, _ = strings.Cut(host, ":")
	for _, h := range [][2]string{{"signin.aws.amazon.com", "aws"}, {"signin.amazonaws.cn", "aws-cn"}, {"signin.amazonaws-us-gov.com", "aws-us-gov"}} {
		if host == h[0] || strings.HasSuffix(host, "."+h[0]) {
			return h[1]
		}
	}
	return ""
}

func getSigninToken(s *Server, q *request) (any, error) {
	var in struct {
		ID    string `json:"sessionId"`
		Key   string `json:"sessionKey"`
		Token string `json:"sessionToken"`
	}
	if err := json.Unmarshal([]byte(q.params.Get("Session")), &in); err != nil || in.ID == "" || in.Key == "" {
		return nil, badConsole("Invalid session parameter")
	}
	bad := badConsole("Invalid credentials parameter")
	x := s.sessions[in.ID]
	if x == nil || !sameToken(x.secret, in.Key) || !sameToken(x.token, in.Token) || !x.expires.After(q.now) || x.revoked != "" {
		return nil, bad // also long-lived keys
	}
	if p := consolePartition(q.http.Host); p != "" && p != x.who.partition {
		return nil, bad
	}
	q.who = &x.who
	until := x.expires
	switch x.who.via {
	case viaSessionToken, viaLogin:
		return nil, bad
	}
	if q.params.Has("SessionDuration") {
		n, err := strconv.Atoi(q.params.Get("SessionDuration"))
		if err != nil || n < 900 || n > 43200 {
			return nil, badConsole("Invalid SessionDuration parameter")
		}
		if x.who.via == viaChain || x.who.role == nil {
			return nil, bad
		}
		until = q.now.Add(time.Duration(n) * time.Second)
	}
	token := opaque(500)
	s.console.tokens[token] = &signinToken{arn: x.who.arn, account: x.who.account, partition: x.who.partition, made: q.now, until: until}
	return jsonAnswer(http.StatusOK, map[string]string{"SigninToken": token}), nil
}

var consoleHosts = map[string]string{"aws": "console.aws.amazon.com", "aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}

// consoleLogin shows who is signed in, where AWS would go on to Destination.
func consoleLogin(s *Server, q *request) (any, error) {
	t := s.console.tokens[q.params.Get("SigninToken")]
	if t == nil || t.made.Before(q.now.Add(-15*time.Minute)) || !t.until.After(q.now) {
		return nil, badConsole("The sign-in token is not valid or has expired")
	}
	to := q.params.Get("Destination")
	u, err := url.Parse(to)
	if host := consoleHosts[t.partition]; err != nil || u.Scheme != "https" || u.Host != host && !strings.HasSuffix(u.Host, "."+host) {
		return nil, badConsole("The destination is not a console of this partition")
	}
	return htmlPage(http.StatusOK, signedIn, struct{ ARN, Account, Until, Destination string }{t.arn, t.account, t.until.Format(xmlTime), to}), nil
}

func switchRolePage(s *Server, q *request) (any, error) {
	get := q.query.Get
	for _, r := range s.roles {
		if r.spec.Account == get("account") && strings.TrimPrefix(r.spec.Path, "/")+r.spec.Name == get("roleName") {
			return htmlPage(http.StatusOK, signedIn, struct{ ARN, Account, Until, Destination string }{r.spec.ARN, r.spec.Account, "", ""}), nil
		}
	}
	return nil, badConsole("Invalid information in one or more fields")
}

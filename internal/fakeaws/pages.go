package fakeaws

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
)

// SignInKind names a sign-in page.
type SignInKind string

// The sign-in pages.
const (
	SignInSSO   SignInKind = "sso"   // Identity Center: /authorize and /device
	SignInLogin SignInKind = "login" // aws login: /v1/authorize
	SignInOIDC  SignInKind = "oidc"  // the OpenID provider
	SignInSAML  SignInKind = "saml"  // the SAML identity provider
)

// SignInMode is what a sign-in page does with whoever opens it.
type SignInMode string

// The modes of sign-in pages.
const (
	SignInAuto       SignInMode = "auto"        // approves at once: a redirect, or the form that posts itself
	SignInClick      SignInMode = "click"       // a page with the buttons #allow and #deny
	SignInForm       SignInMode = "form"        // a page with #username, #password and #submit; a cookie remembers who signed in
	SignInDeny       SignInMode = "deny"        // refuses at once
	SignInWrongState SignInMode = "wrong-state" // approves, but answers with another state
	SignInWait       SignInMode = "wait"        // a page that looks again every second until the mode changes
)

// SignInPassword is what the form takes with any user name.
const SignInPassword = "correct horse"

// SetSignIn sets what a kind of sign-in page does.
func (s *Server) SetSignIn(kind SignInKind, mode SignInMode) {
	if err := s.setSignIn(kind, mode); err != nil {
		panic("fakeaws: " + err.Error())
	}
}

func (s *Server) setSignIn(kind SignInKind, mode SignInMode) error {
	switch kind {
	case SignInSSO, SignInLogin, SignInOIDC, SignInSAML:
	default:
		return fmt.Errorf("there is no sign-in page %q", kind)
	}
	switch mode {
	case SignInAuto, SignInClick, SignInForm, SignInDeny, SignInWrongState, SignInWait:
	default:
		return fmt.Errorf("there is no sign-in mode %q", mode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages.modes[kind] = mode
	return nil
}

// ForgetLogins makes the sign-in pages forget their cookies.
func (s *Server) ForgetLogins() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.pages.cookies)
}

// pageState is what the sign-in pages remember. Server.mu guards it.
type pageState struct {
	modes   map[SignInKind]SignInMode
	cookies map[string]string // value to kind and user name
}

type verdict int

const (
	allowed verdict = iota
	refusedByPerson
	otherState
)

// consentLocked asks the person: either a verdict, or a page to show. user is
// who signed in by the form, "" otherwise.
func (s *Server) consentLocked(q *request, kind SignInKind, what string) (v verdict, user string, page *answer) {
	// A form's own fields, not the query's: a link must not approve.
	form := url.Values{}
	if q.http.Method == http.MethodPost {
		form, _ = url.ParseQuery(string(q.body))
	}
	cookie := "fakeaws_" + string(kind)
	switch s.pages.modes[kind] {
	case SignInDeny:
		return refusedByPerson, "", nil
	case SignInWrongState:
		return otherState, "", nil
	case SignInWait:
		return 0, "", htmlPage(http.StatusOK, waitPage, what)
	case SignInClick:
		switch form.Get("decision") {
		case "allow":
			return allowed, "", nil
		case "deny":
			return refusedByPerson, "", nil
		}
		return 0, "", htmlPage(http.StatusOK, clickPage, what)
	case SignInForm:
		if c, err := q.http.Cookie(cookie); err == nil {
			if name, ok := s.pages.cookies[string(kind)+"/"+c.Value]; ok {
				return allowed, name, nil
			}
		}
		data := struct{ What, Wrong string }{What: what}
		if form.Has("username") {
			if form.Get("password") == SignInPassword && form.Get("username") != "" {
				value := opaque(20)
				s.pages.cookies[string(kind)+"/"+value] = form.Get("username")
				s.log.counters["logins:"+string(kind)]++
				q.cookie = (&http.Cookie{Name: cookie, Value: value, Path: "/", HttpOnly: true, MaxAge: 8 * 3600}).String()
				return allowed, form.Get("username"), nil
			}
			data.Wrong = "The user name or password is not right."
		}
		return 0, "", htmlPage(http.StatusOK, formPage, data)
	}
	return allowed, "", nil
}

func parsePage(name, body string) *template.Template {
	return template.Must(template.New(name).Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>` + name + `</title>` + body + `</body></html>
`))
}

var (
	clickPage = parsePage("Allow access?", `</head><body><h1 id="what">{{.}}</h1>
<form method="post"><button id="allow" name="decision" value="allow">Allow access</button> <button id="deny" name="decision" value="deny">Deny</button></form>`)
	formPage = parsePage("Sign in", `</head><body><h1 id="what">{{.What}}</h1>{{with .Wrong}}<p id="wrong">{{.}}</p>{{end}}
<form method="post"><input id="username" name="username" autocomplete="username"> <input id="password" name="password" type="password"> <button id="submit">Sign in</button></form>`)
	waitPage   = parsePage("Please wait", `<meta http-equiv="refresh" content="1"></head><body><p id="wait">{{.}}: waiting</p>`)
	notePage   = parsePage("Sign-in", `</head><body><p id="note">{{.}}</p>`)
	codePage   = parsePage("Enter the code", `</head><body><form method="get"><input id="user_code" name="user_code"> <button id="submit">Next</button></form>`)
	pastePage  = parsePage("Authorization code", `</head><body><p>Copy this code into the terminal:</p><pre id="code">{{.}}</pre>`)
	selfPoster = parsePage("Signing in", `</head><body onload="document.forms[0].submit()"><form method="post" action="{{.Action}}"><input type="hidden" name="SAMLResponse" value="{{.Response}}">{{with .RelayState}}<input type="hidden" name="RelayState" value="{{.}}">{{end}}<noscript><button>Continue</button></noscript></form>`)
	signedIn   = parsePage("AWS Management Console", `</head><body><h1>Signed in as <span id="arn">{{.ARN}}</span></h1><p>Account <span id="account">{{.Account}}</span>{{with .Until}}, until <span id="until">{{.}}</span>{{end}}</p>{{with .Destination}}<p><a id="destination" href="{{.}}">Go on</a></p>{{end}}`)
	rolesPage  = parsePage("Select a role", `</head><body><ul>{{range .}}<li class="role">{{.}}</li>{{end}}</ul>`)
)

func htmlPage(status int, page *template.Template, data any) *answer {
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		panic(err) // the pages are ours
	}
	return (&answer{status: status, contentType: "text/html; charset=utf-8", body: b.Bytes()}).set("Cache-Control", "no-store")
}

// note is a page with one sentence. A refusal has a code for the record.
func note(status int, code, text string) *answer {
	a := htmlPage(status, notePage, text)
	a.code = code
	return a
}

// goTo redirects with parameters added to the address's own query.
func goTo(address string, params ...string) *answer {
	u, err := url.Parse(address)
	if err != nil {
		return note(http.StatusBadRequest, "InvalidRedirectUri", "The redirect address is not a URL.")
	}
	v := u.Query()
	for i := 0; i < len(params); i += 2 {
		if params[i+1] != "" {
			v.Set(params[i], params[i+1])
		}
	}
	u.RawQuery = v.Encode()
	return (&answer{status: http.StatusFound, contentType: "text/html; charset=utf-8", location: u.String()}).set("Cache-Control", "no-store")
}

// loopback reports whether an address is one of this machine's own, plain
// HTTP and with the path asked for (RFC 8252 §7.3: any port).
func loopback(address, path string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Fragment != "" || u.User != nil {
		return false
	}
	switch u.Hostname() {
	case "127.0.0.1", "localhost", "::1":
	default:
		return false
	}
	return path == "" || u.Path == path
}

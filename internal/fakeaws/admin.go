package fakeaws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// AdminHandler is the side port: JSON in and out, for programs that can't
// call the methods. Answers are 200 with JSON, or 400 with {"error"}.
//
//	GET    /state                   world and settings, no secrets
//	GET    /calls[?action=A]        [Call, …]
//	GET    /counters                {"AssumeRole":2,"*":2}
//	DELETE /calls                   forget calls and counters
//	PUT    /faults                  [Fault, …] replaces; POST adds one; DELETE ends all
//	PUT    /settings                those of AdminSettings that are given
//	POST   /reset                   healthy again, calls forgotten
//	POST   /users                   UserSpec; answers Created
//	POST   /roles                   RoleSpec; answers {"arn"}
//	DELETE /roles?arn=ARN
//	PUT    /keys                    {"access_key_id","status":"Active|Inactive|Deleted"}
//	POST   /revoke                  {"access_key_id" or "*","as":"invalid|expired|denied"}
//	GET    /mfa?serial=ARN          {"code"} that the device accepts now
//	POST   /signin                  SignInWorld: adds or replaces sign-in services, sets the pages' modes
//	GET    /session?access_key_id=  Session: how it was made, its policies, tags, identity
//	POST   /device                  {"user_code"} or {} for all, "deny": DecideDevice
//	POST   /end                     {"what":"sso-sessions|sso-tokens|sso-clients|oidc-sessions|login-sessions|cookies"}
//	POST   /rotate                  {"oidc":NAME,"keep":true}: RotateOIDCKeys
//	POST   /sso-tokens              {"start_url"}; answers SSOTokens
//	GET    /saml-response?provider= {"SAMLResponse"}
//	GET    /id-token?base=URL&provider=&subject=   {"id_token"}
//	GET    /wait?action=A&count=N[&seconds=S]   waits for calls; 400 when the time is over
func (s *Server) AdminHandler() http.Handler {
	m := http.NewServeMux()
	route := func(pattern string, do func(r *http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			out, err := do(r)
			status := http.StatusOK
			if err != nil {
				out, status = map[string]string{"error": err.Error()}, http.StatusBadRequest
			}
			if out == nil {
				out = struct{}{}
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(out)
		})
	}
	route("GET /state", func(*http.Request) (any, error) { return s.state(), nil })
	route("GET /calls", func(r *http.Request) (any, error) {
		calls := []Call{}
		return append(calls, s.Calls(r.URL.Query()["action"]...)...), nil
	})
	route("GET /counters", func(*http.Request) (any, error) { return s.Counters(), nil })
	route("DELETE /calls", func(*http.Request) (any, error) { s.ResetCalls(); return nil, nil })
	route("PUT /faults", func(r *http.Request) (any, error) {
		var list []Fault
		if err := readJSON(r.Body, &list); err != nil {
			return nil, err
		}
		return nil, s.setFaults(list, false)
	})
	route("POST /faults", func(r *http.Request) (any, error) {
		var f Fault
		if err := readJSON(r.Body, &f); err != nil {
			return nil, err
		}
		return nil, s.setFaults([]Fault{f}, true)
	})
	route("DELETE /faults", func(*http.Request) (any, error) { return nil, s.setFaults(nil, false) })
	route("PUT /settings", func(r *http.Request) (any, error) {
		var a AdminSettings
		if err := readJSON(r.Body, &a); err != nil {
			return nil, err
		}
		return nil, s.apply(a)
	})
	route("POST /reset", func(*http.Request) (any, error) { return nil, s.Reset() })
	route("POST /users", func(r *http.Request) (any, error) {
		var u UserSpec
		if err := readJSON(r.Body, &u); err != nil {
			return nil, err
		}
		k, err := s.addUser(u)
		if err != nil {
			return nil, err
		}
		return createdOf(k), nil
	})
	route("POST /roles", func(r *http.Request) (any, error) {
		var x RoleSpec
		if err := readJSON(r.Body, &x); err != nil {
			return nil, err
		}
		arn, err := s.addRole(x)
		return map[string]string{"arn": arn}, err
	})
	route("DELETE /roles", func(r *http.Request) (any, error) { s.RemoveRole(r.URL.Query().Get("arn")); return nil, nil })
	route("PUT /keys", s.adminKey)
	route("POST /revoke", s.adminRevoke)
	route("GET /mfa", func(r *http.Request) (any, error) {
		code := s.MFACode(r.URL.Query().Get("serial"))
		if code == "" {
			return nil, errors.New("no such device, or its codes of this moment are used up")
		}
		return map[string]string{"code": code}, nil
	})
	route("GET /wait", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		n, err := strconv.Atoi(q.Get("count"))
		if err != nil {
			return nil, errors.New("count is not a number")
		}
		seconds := 10.0
		if v := q.Get("seconds"); v != "" {
			if seconds, err = strconv.ParseFloat(v, 64); err != nil {
				return nil, errors.New("seconds is not a number")
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), asDuration(seconds))
		defer cancel()
		return nil, s.Wait(ctx, orElse(q.Get("action"), "*"), n)
	})
	s.signInRoutes(route)
	return m
}

// AdminSettings is the body of PUT /settings. What is absent stays as it is.
type AdminSettings struct {
	Latency      map[string]float64 `json:"latency,omitempty"`              // seconds by action; 0 ends one
	ClockOffset  *float64           `json:"clock_offset_seconds,omitempty"` // SetClock
	Lifetime     *float64           `json:"lifetime_seconds,omitempty"`     // SetLifetime
	KeyDelay     *float64           `json:"key_delay_seconds,omitempty"`    // SetKeyDelay
	Regions      *[]string          `json:"regions,omitempty"`              // SetRegions
	Outage       *Outage            `json:"outage,omitempty"`               // SetOutage
	CurrentFault []Fault            `json:"faults,omitempty"`               // shown by GET /state only
}

func (s *Server) apply(a AdminSettings) error {
	for action, v := range a.Latency {
		s.SetLatency(action, asDuration(v))
	}
	if a.ClockOffset != nil {
		s.SetClock(asDuration(*a.ClockOffset))
	}
	if a.Lifetime != nil {
		s.SetLifetime(asDuration(*a.Lifetime))
	}
	if a.KeyDelay != nil {
		s.SetKeyDelay(asDuration(*a.KeyDelay))
	}
	if a.Regions != nil {
		s.SetRegions(*a.Regions...)
	}
	if a.Outage != nil {
		return s.SetOutage(*a.Outage)
	}
	return nil
}

func (s *Server) adminKey(r *http.Request) (any, error) {
	var in struct {
		AccessKeyID string `json:"access_key_id"`
		Status      string `json:"status"`
	}
	if err := readJSON(r.Body, &in); err != nil {
		return nil, err
	}
	var ok bool
	switch in.Status {
	case "Active", "Inactive":
		ok = s.SetKeyActive(in.AccessKeyID, in.Status == "Active")
	case "Deleted":
		ok = s.DeleteKey(in.AccessKeyID)
	default:
		return nil, errors.New("status is Active, Inactive or Deleted")
	}
	if !ok {
		return nil, errors.New("there is no such key")
	}
	return nil, nil
}

func (s *Server) adminRevoke(r *http.Request) (any, error) {
	var in struct {
		AccessKeyID string     `json:"access_key_id"`
		As          Revocation `json:"as"`
	}
	if err := readJSON(r.Body, &in); err != nil {
		return nil, err
	}
	switch in.As {
	case "":
		in.As = RevokedInvalid
	case RevokedInvalid, RevokedExpired, RevokedDenied:
	default:
		return nil, errors.New("as is invalid, expired or denied")
	}
	if in.AccessKeyID == "*" {
		return map[string]int{"revoked": s.RevokeAll(in.As)}, nil
	}
	if !s.Revoke(in.AccessKeyID, in.As) {
		return nil, errors.New("there is no such session")
	}
	return map[string]int{"revoked": 1}, nil
}

// shownState is the answer of GET /state.
type shownState struct {
	Time     time.Time      `json:"time"`
	Settings AdminSettings  `json:"settings"`
	Counters map[string]int `json:"counters"`
	Users    []shownUser    `json:"users"`
	Roles    []RoleSpec     `json:"roles"`
	Sessions []Session      `json:"sessions"`
}

type shownUser struct {
	ARN  string            `json:"arn"`
	Keys map[string]string `json:"keys"` // id to status
	MFA  []string          `json:"mfa"`  // serials
}

func (s *Server) state() shownState {
	counters := s.Counters()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := shownState{Time: s.nowLocked(), Counters: counters, Users: []shownUser{}, Roles: []RoleSpec{}, Sessions: []Session{}}
	sec := func(d time.Duration) *float64 { v := d.Seconds(); return &v }
	set := AdminSettings{Latency: map[string]float64{}, ClockOffset: sec(s.set.clock), Lifetime: sec(s.set.lifetime),
		KeyDelay: sec(s.set.keyDelay), Regions: &s.set.regions, Outage: &s.set.outage}
	for k, v := range s.set.latency {
		set.Latency[k] = v.Seconds()
	}
	for _, f := range s.set.faults {
		if !f.spent {
			set.CurrentFault = append(set.CurrentFault, *f)
		}
	}
	// The handler writes this after mu is free again: nothing of it may be
	// shared.
	regions, outage := append([]string{}, s.set.regions...), s.set.outage
	set.Regions, set.Outage = &regions, &outage
	out.Settings = set
	for _, u := range s.users {
		x := shownUser{ARN: u.arn, Keys: map[string]string{}, MFA: []string{}}
		for _, k := range u.keys {
			x.Keys[k.id] = keyOf(k).Status
		}
		for _, d := range u.devices {
			x.MFA = append(x.MFA, d.serial)
		}
		out.Users = append(out.Users, x)
	}
	for _, r := range s.roles {
		out.Roles = append(out.Roles, r.spec)
	}
	for _, x := range s.sessions {
		out.Sessions = append(out.Sessions, x.shown())
	}
	return out
}

// Created is what a new user got: POST /users and the program's ready line.
type Created struct {
	Name            string    `json:"name"`
	ARN             string    `json:"arn"`
	Account         string    `json:"account"`
	AccessKeyID     string    `json:"access_key_id"`
	SecretAccessKey string    `json:"secret_access_key"`
	MFA             []MFASpec `json:"mfa"`
}

func createdOf(k *accessKey) Created {
	u := k.owner
	return Created{u.spec.Name, u.arn, u.spec.Account, k.id, k.secret, append([]MFASpec{}, u.spec.MFA...)}
}

// readJSON decodes one JSON value; unknown keys and trailing text are errors.
func readJSON(r io.Reader, v any) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("text after the JSON value")
	}
	return nil
}

func asDuration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

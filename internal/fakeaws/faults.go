package fakeaws

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of fault. Those marked (judged) happen to a request that is
// judged as usual and would have succeeded; the others come before the
// signature is looked at.
const (
	Drop         Kind = "drop"          // the connection is closed without an answer
	Hang         Kind = "hang"          // Seconds pass (default: until the caller leaves), then it is judged as usual
	Fail500      Kind = "500"           // 500 InternalFailure
	Throttle     Kind = "throttle"      // the service's own throttling, 503 Throttling in most (Status, Code and Message set others)
	Error        Kind = "error"         // Code and Message with Status (default 400)
	Garbage      Kind = "garbage"       // 200 with Body, default an HTML page
	Empty        Kind = "empty"         // 200 and no body
	Redirect     Kind = "redirect"      // Status (default 307) to Location
	ErrorIn200   Kind = "error-in-200"  // an error body (Code, Message) with status 200
	Half         Kind = "half"          // half of the answer's body, then the connection is closed (judged)
	Late         Kind = "late"          // done, but the connection is closed instead of answered (judged)
	PastExpiry   Kind = "past-expiry"   // issued credentials say they expired an hour ago (judged)
	FarExpiry    Kind = "far-expiry"    // issued credentials say they last a year (judged)
	WrongAccount Kind = "wrong-account" // ARNs and account of the answer are another account's (judged)
	NoDate       Kind = "no-date"       // the answer has no Date header (judged)
)

var kinds = map[Kind]bool{Drop: true, Hang: true, Fail500: true, Throttle: true, Error: true, Garbage: true, Empty: true, Redirect: true,
	ErrorIn200: true, Half: true, Late: true, PastExpiry: true, FarExpiry: true, WrongAccount: true, NoDate: true}

// Fault makes requests go wrong. The first fault of the list that matches a
// request applies to it.
type Fault struct {
	Kind Kind `json:"kind"`
	// Action limits the fault to an action; "" or "*" is every request.
	Action string `json:"action,omitempty"`
	// RoleARN limits it to requests about a role (with * and ?).
	RoleARN string `json:"role_arn,omitempty"`
	// After lets so many matching requests pass first; Count is how many it
	// then hits, 0 for all until the faults are changed.
	After int `json:"after,omitempty"`
	Count int `json:"count,omitempty"`

	Status   int     `json:"status,omitempty"`
	Code     string  `json:"code,omitempty"`
	Message  string  `json:"message,omitempty"`
	Body     string  `json:"body,omitempty"`
	Location string  `json:"location,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`

	spent bool
}

// SetFaults replaces the list of faults; none makes the server healthy. It
// panics on an unknown kind.
func (s *Server) SetFaults(faults ...Fault) {
	if err := s.setFaults(faults, false); err != nil {
		panic("fakeaws: " + err.Error())
	}
}

// AddFault adds a fault at the end of the list.
func (s *Server) AddFault(f Fault) {
	if err := s.setFaults([]Fault{f}, true); err != nil {
		panic("fakeaws: " + err.Error())
	}
}

func (s *Server) setFaults(faults []Fault, keep bool) error {
	list := make([]*Fault, len(faults))
	for i, f := range faults {
		if !kinds[f.Kind] {
			return fmt.Errorf("there is no fault of kind %q", f.Kind)
		}
		list[i] = &f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if keep {
		list = append(s.set.faults, list...)
	}
	s.set.faults = list
	return nil
}

// takeFaultLocked finds the fault of a request and counts it.
func (s *Server) takeFaultLocked(q *request) *Fault {
	for _, f := range s.set.faults {
		switch {
		case f.spent,
			f.Action != "" && f.Action != "*" && f.Action != q.action,
			f.RoleARN != "" && !match(f.RoleARN, orElse(q.params.Get("RoleArn"), q.params.Get("roleArn"))):
			continue
		case f.After > 0:
			f.After--
			continue
		}
		if f.Count > 0 {
			f.Count--
			f.spent = f.Count == 0
		}
		hit := *f
		return &hit
	}
	return nil
}

func orStatus(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

func (f *Fault) delay() time.Duration {
	if f.Seconds <= 0 {
		return 24 * time.Hour // ended by the caller's leaving
	}
	return time.Duration(f.Seconds * float64(time.Second))
}

// before is the answer of a fault that asks nobody, nil to go on. Like all
// methods of Fault it works on nil, which is no fault.
func (f *Fault) before(q *request) *answer {
	if f == nil {
		return nil
	}
	say := func(status int, code, message string) *answer {
		if f.Status != 0 {
			status = f.Status
		}
		return q.room.failure(q, fail(status, orElse(f.Code, code), "%s", orElse(f.Message, message)))
	}
	switch f.Kind {
	case Drop:
		return &answer{drop: true}
	case Fail500:
		return say(http.StatusInternalServerError, "InternalFailure", "The request processing has failed because of an unknown error, exception or failure.")
	case Throttle:
		if e := q.room.throttle; e != nil {
			x := *e
			x.status, x.code, x.message = orStatus(f.Status, e.status), orElse(f.Code, e.code), orElse(f.Message, e.message)
			return q.room.failure(q, &x)
		}
		return say(http.StatusServiceUnavailable, "Throttling", "Rate exceeded")
	case Error:
		return say(http.StatusBadRequest, "ValidationError", "The request failed.")
	case ErrorIn200:
		a := say(http.StatusInternalServerError, "InternalFailure", "The request processing has failed because of an unknown error, exception or failure.")
		a.status = http.StatusOK
		return a
	case Garbage:
		return &answer{status: http.StatusOK, contentType: "text/html", body: []byte(orElse(f.Body, "<html><head><title>Sign in to the guest network</title></head><body>Welcome.</body></html>\n"))}
	case Empty:
		return &answer{status: http.StatusOK, contentType: "text/xml"}
	case Redirect:
		status := f.Status
		if status == 0 {
			status = http.StatusTemporaryRedirect
		}
		return &answer{status: status, contentType: "text/html", location: orElse(f.Location, "http://127.0.0.1:9/")}
	}
	return nil
}

// after changes a good answer.
func (f *Fault) after(_ *request, a *answer) *answer {
	if f == nil {
		return a
	}
	switch f.Kind {
	case Half:
		a.half = true
	case Late:
		a.drop = true
	case NoDate:
		a.noDate = true
	}
	return a
}

func (f *Fault) expiration(real, now time.Time) time.Time {
	if f != nil && f.Kind == PastExpiry {
		return now.Add(-time.Hour)
	}
	if f != nil && f.Kind == FarExpiry {
		return now.AddDate(1, 0, 0)
	}
	return real
}

func (f *Fault) account(real string) string {
	if f != nil && f.Kind == WrongAccount {
		return otherAccountThan(strings.TrimSpace(real))
	}
	return real
}

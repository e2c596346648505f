package imds

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
)

// fault is an answer that is no credential: the HTTP status and what the
// body says. It is made in this file alone.
type fault struct {
	status  int
	code    string // of the container form
	message string // of the container form, for the person who reads the client's error
	reason  string // for the log and the audit log
	detail  string // for the log, more than reason: may hold what the caller chose
	close   bool   // the connection ends with the answer
	allow   string // of 405
	// document is a text/plain body instead of the page or object that is
	// made of the fields above.
	document []byte
}

// The faults of requests. What the outside sees is the status: reasons are
// for the log.
func badRequest(reason string) *fault {
	return &fault{status: http.StatusBadRequest, code: "BadRequest", message: "the request is not understood", reason: reason, close: true}
}

func forbidden(reason string) *fault {
	return &fault{status: http.StatusForbidden, code: "AccessDenied", message: "denied", reason: reason}
}

// with adds what the log alone may say.
func (f *fault) with(detail string) *fault {
	f.detail = detail
	return f
}

// denied is forbidden with the rule that says so, for the log.
func denied(err error) *fault {
	var d *access.Denied
	if errors.As(err, &d) {
		return forbidden(d.Reason)
	}
	return forbidden(err.Error())
}

func unauthorized(reason string) *fault {
	return &fault{status: http.StatusUnauthorized, code: "Unauthorized", message: "the token is missing or not valid", reason: reason}
}

func notFound() *fault {
	return &fault{status: http.StatusNotFound, code: "NotFound", message: "there is nothing at this path"}
}

func methodNotAllowed(m methods) *fault {
	return &fault{status: http.StatusMethodNotAllowed, code: "MethodNotAllowed", message: "the method does not fit the path", allow: m.allow()}
}

func tooLarge() *fault {
	return &fault{status: http.StatusRequestEntityTooLarge, code: "TooLarge", message: "the request's body is too large", close: true}
}

func unavailable(message, reason string) *fault {
	return &fault{status: http.StatusServiceUnavailable, code: "Unavailable", message: message, reason: reason}
}

// form is the shape of a server's answers.
type form uint8

const (
	metadataForm  form = iota + 1 // EC2's: plain text and XHTML pages
	containerForm                 // JSON objects
)

// refusedCode is EC2's own word for a role that can't be assumed.
const refusedCode = "AssumeRoleUnauthorizedAccess"

// faultOf maps what the broker says to what an HTTP client is told. It is
// the only such mapping. now dates the document of a refusal.
func faultOf(err error, as form, now time.Time) *fault {
	var up *cred.UpstreamError
	var person *cred.InteractionError
	switch {
	case errors.Is(err, cred.ErrDenied):
		return denied(err)
	case errors.Is(err, cred.ErrUnknownProfile):
		if as == metadataForm {
			return notFound() // no role to serve
		}
		return forbidden(err.Error()) // other people's profiles and none look alike
	case errors.As(err, &up) && up.Refused:
		f := &fault{status: http.StatusForbidden, code: refusedCode, message: words(err), reason: err.Error()}
		if as == metadataForm {
			f.status, f.document = http.StatusOK, refusal(now, f.message)
		}
		return f
	case errors.As(err, &person), errors.Is(err, cred.ErrLocked), errors.Is(err, cred.ErrConfig), up != nil:
		return unavailable(words(err), err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable(cred.ErrUnavailable.Error(), "no credentials in time")
	}
	// An error of no known type may hold anything: its text stays here.
	return unavailable(cred.ErrUnavailable.Error(), err.Error())
}

// words is an error and what to do about it, in one line for a person.
func words(err error) string {
	if h := cred.HintOf(err); h != "" {
		return err.Error() + " (hint: " + h + ")"
	}
	return err.Error()
}

// page is EC2's body for a status: an XHTML page with the status and its
// words as title and heading.
func page(status int) []byte {
	line := strconv.Itoa(status) + " - " + http.StatusText(status)
	return []byte(`<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>` + line + `</title>
 </head>
 <body>
  <h1>` + line + `</h1>
 </body>
</html>
`)
}

// object is the container form of a fault.
func object(f *fault) []byte {
	b, err := json.Marshal(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{f.code, f.message})
	if err != nil { // two strings can't fail
		return []byte(`{"code":"InternalError","message":""}`)
	}
	return b
}

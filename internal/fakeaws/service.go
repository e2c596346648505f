package fakeaws

import (
	"bytes"
	"crypto/subtle"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// service is a room: how its requests are recognised, how it answers, what
// it can do.
type service struct {
	// name is the signing name of the credential scope.
	name string
	// match returns the action that a request asks of this service, and
	// whether it is this service's at all.
	match func(q *request) (action string, ok bool)
	// success and failure put a result or an error into the service's form.
	success func(q *request, result any) *answer
	failure func(q *request, e *apiError) *answer
	actions map[string]action
	// throttle is what the Throttle fault says here, nil for 503 Throttling.
	throttle *apiError
}

// action is one thing that a service can do.
type action struct {
	// run judges and does it. s.mu is held, q.who is the caller (nil when
	// unsigned). An error is an *apiError.
	run func(s *Server, q *request) (any, error)
	// permission is the IAM action that a Deny of the caller can name, ""
	// when none is needed.
	permission string
	// unsigned: the action takes no signature.
	unsigned bool
}

// rooms lists the services. The first that recognises a request has it; the
// last resort is STS, whose InvalidAction is what AWS's own front says.
func rooms() []*service {
	return []*service{stsRoom, iamRoom, s3Room, ssoOIDCRoom, portalRoom, signinRoom, oidcRoom, samlRoom, anywhereRoom, consoleRoom, analyzerRoom, imdsRoom, containerRoom}
}

func recognise(q *request) (r *service, name string, known bool) {
	for _, r := range rooms() {
		if name, ok := r.match(q); ok {
			_, known = r.actions[name]
			return r, name, known
		}
	}
	return stsRoom, q.params.Get("Action"), false
}

// queryRoom makes a service of the query protocol: parameters in a form,
// answers in XML of the namespace.
func queryRoom(name, version, namespace string, actions map[string]action) *service {
	return &service{
		name:    name,
		actions: actions,
		match: func(q *request) (string, bool) {
			return q.params.Get("Action"), q.params.Get("Version") == version
		},
		success: func(q *request, result any) *answer {
			return &answer{status: http.StatusOK, contentType: "text/xml", body: marshal(struct {
				XMLName  xml.Name
				Result   any
				Metadata string `xml:"ResponseMetadata>RequestId"`
			}{
				XMLName: xml.Name{Space: namespace, Local: q.action + "Response"},
				Result:  result, Metadata: q.id,
			})}
		},
		failure: func(q *request, e *apiError) *answer {
			return &answer{status: e.status, contentType: "text/xml", code: e.code, body: marshal(struct {
				XMLName xml.Name
				Type    string `xml:"Error>Type"`
				Code    string `xml:"Error>Code"`
				Message string `xml:"Error>Message"`
				ID      string `xml:"RequestId"`
			}{xml.Name{Space: namespace, Local: "ErrorResponse"}, e.sender(), e.code, e.message, q.id})}
		},
	}
}

func marshal(v any) []byte {
	var b bytes.Buffer
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := e.Encode(v); err != nil {
		panic(err) // the values are ours
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// formOf merges the URL's query and a form or JSON body; of a form and the
// query the query comes first.
func formOf(r *http.Request, body []byte, query url.Values) url.Values {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return jsonParams(body, query)
	}
	if r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return query
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return query
	}
	for k, v := range query {
		form[k] = append(append([]string(nil), v...), form[k]...)
	}
	return form
}

// members reads a list parameter: Name.member.1, Name.member.2, … A suffix
// such as ".Key" reads one field of a list of structures. The list ends at
// the first number for which none of the suffixes is there.
func members(q url.Values, name string, suffixes ...string) [][]string {
	if len(suffixes) == 0 {
		suffixes = []string{""}
	}
	var out [][]string
	for i := 1; ; i++ {
		row, any := make([]string, len(suffixes)), false
		for j, suf := range suffixes {
			key := name + ".member." + strconv.Itoa(i) + suf
			row[j] = q.Get(key)
			any = any || q.Has(key)
		}
		if !any {
			return out
		}
		out = append(out, row)
	}
}

func sameToken(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func itoa(n int) string { return strconv.Itoa(n) }

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

package fakeaws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// route is one path of a service that is told by method and path.
type route struct {
	method string // "" is GET or POST, as pages and their forms use
	path   string // segments; {x} is any one segment, found in request.path
	name   string // the action
	action action
}

// restRoom makes a service of routes. Its answers are JSON unless an action
// returns an *answer of its own.
func restRoom(name string, failure func(*request, *apiError) *answer, throttle *apiError, routes ...route) *service {
	r := &service{name: name, actions: map[string]action{}, failure: failure, throttle: throttle, success: jsonResult}
	for _, x := range routes {
		r.actions[x.name] = x.action
	}
	r.match = func(q *request) (string, bool) {
		found := false
		for _, x := range routes {
			vars, ok := matchPath(x.path, q.http.URL.Path)
			if !ok {
				continue
			}
			found = true
			m := q.http.Method
			if m == x.method || x.method == "" && (m == http.MethodGet || m == http.MethodPost) {
				q.path = vars
				return x.name, true
			}
		}
		return "", found
	}
	return r
}

func matchPath(pattern, path string) (map[string]string, bool) {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil, false
	}
	var vars map[string]string
	for i, w := range want {
		if strings.HasPrefix(w, "{") {
			if got[i] == "" {
				return nil, false
			}
			if vars == nil {
				vars = map[string]string{}
			}
			vars[strings.Trim(w, "{}")] = got[i]
		} else if w != got[i] {
			return nil, false
		}
	}
	return vars, true
}

func jsonResult(_ *request, result any) *answer {
	if a, ok := result.(*answer); ok {
		return a
	}
	return jsonAnswer(http.StatusOK, result)
}

func jsonAnswer(status int, v any) *answer {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // the values are ours
	}
	return &answer{status: status, contentType: "application/json", body: bytes.TrimSpace(b.Bytes())}
}

// jsonParams flattens a JSON object's strings, numbers, booleans and lists of
// strings, so that JSON bodies are recorded and matched by faults as query
// parameters are.
func jsonParams(body []byte, params url.Values) url.Values {
	var in map[string]any
	if json.Unmarshal(body, &in) != nil {
		return params
	}
	out := url.Values{}
	for k, v := range params {
		out[k] = v
	}
	for k, v := range in {
		switch v := v.(type) {
		case string:
			out.Set(k, v)
		case float64, bool:
			out.Set(k, fmt.Sprint(v))
		case []any:
			for _, m := range v {
				if s, ok := m.(string); ok {
					out.Add(k, s)
				}
			}
		}
	}
	return out
}

// base is the URL that the request was sent to, without a path.
func (q *request) base() string {
	if q.http.TLS != nil {
		return "https://" + q.http.Host
	}
	return "http://" + q.http.Host
}

// errorType names an error in the header that SDKs look at first.
func (a *answer) errorType(code string) *answer {
	return a.set("X-Amzn-Errortype", code+":http://internal.amazon.com/coral/com.amazon.coral.service/")
}

func (a *answer) set(name, value string) *answer {
	if a.header == nil {
		a.header = http.Header{}
	}
	a.header.Add(name, value)
	return a
}

// generic translates the words of the query protocol, which faults and the
// dispatcher use, into a service's own.
func generic(e *apiError, words map[string]string) *apiError {
	if w, ok := words[e.code]; ok {
		x := *e
		x.code = w
		return &x
	}
	return e
}

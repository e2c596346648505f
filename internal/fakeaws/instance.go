package fakeaws

import (
	"net/http"
	"strconv"
	"time"
)

// InstanceSpec describes the EC2 instance whose metadata the fake serves
// below /latest, and whose role the container endpoint gives.
type InstanceSpec struct {
	Role   string `json:"role"`   // ARN of its role, "" for an instance without one
	Region string `json:"region"` // default eu-west-1
	// V1: requests without a token are answered as well. NoV2: it is an old
	// endpoint that knows no tokens (PUT answers 404).
	V1   bool `json:"v1"`
	NoV2 bool `json:"no_v2"`
	// Seconds is the credentials' life, default 21600. New ones are given
	// when a twelfth of it, at most half an hour, is left.
	Seconds int `json:"seconds"`
}

// ContainerSpec describes a container credentials endpoint:
// URL/container/NAME.
type ContainerSpec struct {
	Name    string `json:"name"` // default "task"
	Role    string `json:"role"` // ARN
	Token   string `json:"token"`
	Seconds int    `json:"seconds"` // default 21600
}

// imdsRoom is the instance metadata service as far as credentials need it,
// by the EC2 user guide.
var imdsRoom = restRoom("imds", imdsFailure, &apiError{status: 429, code: "TooManyRequests", message: "429 - Too Many Requests"},
	route{"PUT", "/latest/api/token", "IMDSToken", action{run: imdsToken, unsigned: true}},
	route{"GET", "/latest/meta-data/iam/security-credentials/", "IMDSRole", action{run: withToken(imdsRole), unsigned: true}},
	route{"GET", "/latest/meta-data/iam/security-credentials", "IMDSRole", action{run: withToken(imdsRole), unsigned: true}},
	route{"GET", "/latest/meta-data/iam/security-credentials/{role}", "IMDSCredentials", action{run: withToken(imdsCredentials), unsigned: true}},
	route{"GET", "/latest/meta-data/iam/info", "IMDSInfo", action{run: withToken(imdsInfo), unsigned: true}},
	route{"GET", "/latest/meta-data/placement/region", "IMDSRegion", action{run: withToken(imdsRegion), unsigned: true}},
	route{"GET", "/latest/meta-data/placement/availability-zone", "IMDSZone", action{run: withToken(imdsZone), unsigned: true}},
	route{"GET", "/latest/dynamic/instance-identity/document", "IMDSIdentity", action{run: withToken(imdsIdentity), unsigned: true}},
)

// containerRoom is the container credentials endpoint (ECS, EKS).
var containerRoom = restRoom("container", containerFailure, &apiError{status: 429, code: "ThrottlingException", message: "Rate exceeded"},
	route{"GET", "/container/{name}", "ContainerCredentials", action{run: containerCredentials, unsigned: true}},
)

func imdsFailure(_ *request, e *apiError) *answer {
	return &answer{status: e.status, contentType: "text/plain", code: e.code, body: []byte(e.message)}
}

func containerFailure(_ *request, e *apiError) *answer {
	a := jsonAnswer(e.status, map[string]string{"code": e.code, "message": e.message})
	a.code = e.code
	return a
}

// imdsState is the memory of the metadata endpoints. Server.mu guards it.
type imdsState struct {
	instance   *InstanceSpec
	containers map[string]*ContainerSpec
	tokens     map[string]time.Time
	current    map[string]*session // by role ARN: what is handed out now
}

func newIMDSState() imdsState {
	return imdsState{containers: map[string]*ContainerSpec{}, tokens: map[string]time.Time{}, current: map[string]*session{}}
}

// SetInstance makes the fake an instance's metadata service.
func (s *Server) SetInstance(spec InstanceSpec) {
	set(&spec.Region, "eu-west-1")
	setInt(&spec.Seconds, 21600)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imds.instance = &spec
	clear(s.imds.current)
}

// AddContainer adds or replaces a container credentials endpoint and returns
// its path.
func (s *Server) AddContainer(spec ContainerSpec) (path string) {
	set(&spec.Name, "task")
	setInt(&spec.Seconds, 21600)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imds.containers[spec.Name] = &spec
	return "/container/" + spec.Name
}

func notThere() error { return fail(http.StatusNotFound, "NotFound", "404 - Not Found") }

func imdsToken(s *Server, q *request) (any, error) {
	if s.imds.instance == nil || s.imds.instance.NoV2 {
		return nil, notThere()
	}
	if q.http.Header.Get("X-Forwarded-For") != "" {
		return nil, fail(http.StatusForbidden, "Forbidden", "403 - Forbidden")
	}
	text := q.http.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 21600 {
		return nil, fail(http.StatusBadRequest, "BadRequest", "400 - Bad Request")
	}
	token := "AQAEA" + opaque(37) + "=="
	s.imds.tokens[token] = q.now.Add(time.Duration(n) * time.Second)
	return plain(token).set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", text), nil
}

func plain(text string) *answer {
	return &answer{status: http.StatusOK, contentType: "text/plain", body: []byte(text)}
}

// withToken wants a token of IMDSToken, unless the instance answers without.
func withToken(do func(*Server, *request, *InstanceSpec) (any, error)) func(*Server, *request) (any, error) {
	return func(s *Server, q *request) (any, error) {
		x := s.imds.instance
		if x == nil {
			return nil, notThere()
		}
		if token := q.http.Header.Get("X-Aws-Ec2-Metadata-Token"); !x.NoV2 && (token != "" || !x.V1) && !s.imds.tokens[token].After(q.now) {
			return nil, fail(http.StatusUnauthorized, "Unauthorized", "401 - Unauthorized")
		}
		return do(s, q, x)
	}
}

func roleName(arn string) string {
	r := RoleSpec{ARN: arn}
	if r.defaults() != nil {
		return ""
	}
	return r.Name
}

func imdsRole(_ *Server, _ *request, x *InstanceSpec) (any, error) {
	if x.Role == "" {
		return nil, notThere()
	}
	return plain(roleName(x.Role)), nil
}

const instanceID = "i-0123456789abcdef0"

// heldLocked returns a role's current session, a new one when the old one is
// about to end.
func (s *Server) heldLocked(arn, sessionName, via string, seconds int) *session {
	now := s.nowLocked()
	margin := min(30*time.Minute, time.Duration(seconds)*time.Second/12)
	if x := s.imds.current[via+arn]; x != nil && x.expires.After(now.Add(margin)) {
		return x
	}
	r := s.roles[arn]
	if r == nil {
		return nil
	}
	who := roleSession(r, sessionName)
	who.via = via
	x := s.issueLocked(who, seconds)
	s.imds.current[via+arn] = x
	return x
}

func imdsCredentials(s *Server, q *request, x *InstanceSpec) (any, error) {
	if x.Role == "" || q.path["role"] != roleName(x.Role) {
		return nil, notThere()
	}
	c := s.heldLocked(x.Role, instanceID, viaInstance, x.Seconds)
	if c == nil { // as AWS says it of a role that can't be assumed
		return plain(`{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume the role ` + roleName(x.Role) + `.","LastUpdated":"` + q.now.Format(xmlTime) + `"}`), nil
	}
	q.issued = c.id
	a := jsonAnswer(http.StatusOK, map[string]string{"Code": "Success", "LastUpdated": c.issued.Format(xmlTime), "Type": "AWS-HMAC", "AccessKeyId": c.id,
		"SecretAccessKey": c.secret, "Token": c.token, "Expiration": q.fault.expiration(c.expires, q.now).Format(xmlTime)})
	a.contentType = "text/plain"
	return a, nil
}

func imdsInfo(_ *Server, q *request, x *InstanceSpec) (any, error) {
	if x.Role == "" {
		return nil, notThere()
	}
	_, acct, _, _ := splitARN(x.Role)
	return jsonAnswer(http.StatusOK, map[string]string{"Code": "Success", "LastUpdated": q.now.Format(xmlTime),
		"InstanceProfileArn": "arn:aws:iam::" + acct + ":instance-profile/" + roleName(x.Role), "InstanceProfileId": "AIPAEXAMPLEEXAMPLE000"}), nil
}

func imdsRegion(_ *Server, _ *request, x *InstanceSpec) (any, error) { return plain(x.Region), nil }

func imdsZone(_ *Server, _ *request, x *InstanceSpec) (any, error) { return plain(x.Region + "a"), nil }

func imdsIdentity(_ *Server, _ *request, x *InstanceSpec) (any, error) {
	_, acct, _, _ := splitARN(x.Role)
	return jsonAnswer(http.StatusOK, map[string]string{"accountId": orElse(acct, DefaultAccount), "region": x.Region, "availabilityZone": x.Region + "a", "instanceId": instanceID, "version": "2017-09-30"}), nil
}

func containerCredentials(s *Server, q *request) (any, error) {
	x := s.imds.containers[q.path["name"]]
	if x == nil {
		return nil, fail(http.StatusNotFound, "NotFound", "there are no such credentials")
	}
	if !sameToken(x.Token, q.http.Header.Get("Authorization")) {
		return nil, fail(http.StatusUnauthorized, "AccessDenied", "the authorization token is not right")
	}
	c := s.heldLocked(x.Role, "container-"+x.Name, viaContainer, x.Seconds)
	if c == nil {
		return nil, fail(http.StatusForbidden, "AccessDenied", "the role %s can't be assumed", x.Role)
	}
	q.issued = c.id
	return map[string]string{"RoleArn": x.Role, "AccessKeyId": c.id, "SecretAccessKey": c.secret, "Token": c.token, "Expiration": q.fault.expiration(c.expires, q.now).Format(xmlTime)}, nil
}

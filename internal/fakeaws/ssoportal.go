package fakeaws

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// portalRoom is Identity Center's portal, by the service model "sso"
// 2019-06-10, with the 403 that the model leaves out.
var portalRoom = restRoom("awsssoportal", portalFailure, &apiError{status: 429, code: "TooManyRequestsException", message: "HTTP 429 Unknown Code"},
	route{"GET", "/federation/credentials", "GetRoleCredentials", action{run: getRoleCredentials, unsigned: true}},
	route{"GET", "/assignment/accounts", "ListAccounts", action{run: listAccounts, unsigned: true}},
	route{"GET", "/assignment/roles", "ListAccountRoles", action{run: listAccountRoles, unsigned: true}},
	route{"POST", "/logout", "Logout", action{run: portalLogout, unsigned: true}},
)

func portalFailure(_ *request, e *apiError) *answer {
	e = generic(e, map[string]string{"InternalFailure": "InternalServerException", "InvalidAction": "UnknownOperationException", "ValidationError": "InvalidRequestException"})
	a := jsonAnswer(e.status, struct {
		Message string `json:"message"`
		Type    string `json:"__type"`
	}{e.message, "com.amazonaws.switchboard.portal#" + e.code})
	a.code = e.code
	return a
}

// bearerLocked finds the session of the request's token.
func (s *Server) bearerLocked(q *request) (*ssoSession, error) {
	t := s.sso.access[q.http.Header.Get("X-Amz-Sso_bearer_token")]
	if t == nil || !t.expires.After(q.now) || !t.session.alive(q.now) || wrongRegion(q, t.session.portal) {
		return nil, fail(http.StatusUnauthorized, "UnauthorizedException", "Session token not found or invalid")
	}
	return t.session, nil
}

func noAccess() error { return fail(http.StatusForbidden, "ForbiddenException", "No access") }

func badPortal(message string) error {
	return fail(http.StatusBadRequest, "InvalidRequestException", "%s", message)
}

func (p *SSOSpec) account(id string) *SSOAccount {
	for i := range p.Accounts {
		if p.Accounts[i].ID == id {
			return &p.Accounts[i]
		}
	}
	return nil
}

func getRoleCredentials(s *Server, q *request) (any, error) {
	x, err := s.bearerLocked(q)
	if err != nil {
		return nil, err
	}
	acct, name := q.query.Get("account_id"), q.query.Get("role_name")
	if !account.MatchString(acct) || name == "" {
		return nil, badPortal("account_id and role_name are required")
	}
	if a := x.portal.account(acct); a != nil {
		for _, r := range a.Roles {
			if r.Name != name {
				continue
			}
			who := roleSession(s.ssoRoleLocked(x.portal, acct, r), x.user)
			who.via = viaSSO
			c := s.issueLocked(who, r.Seconds)
			q.issued = c.id
			return map[string]any{"roleCredentials": map[string]any{"accessKeyId": c.id, "secretAccessKey": c.secret, "sessionToken": c.token,
				"expiration": q.fault.expiration(c.expires, q.now).Truncate(time.Second).UnixMilli()}}, nil
		}
	}
	return nil, noAccess()
}

// pageOf cuts a list by max_result and next_token.
func pageOf[T any](q *request, size int, list []T) (page []T, next any, err error) {
	n := 20
	if v := q.query.Get("max_result"); v != "" {
		if n, err = strconv.Atoi(v); err != nil || n < 1 || n > 100 {
			return nil, nil, badPortal("max_result must be between 1 and 100")
		}
	}
	if size > 0 {
		n = min(n, size)
	}
	from := 0
	if v := q.query.Get("next_token"); v != "" {
		b, err1 := base64.StdEncoding.DecodeString(v)
		at, ok := strings.CutPrefix(string(b), q.action+":")
		from, err = strconv.Atoi(at)
		if err1 != nil || err != nil || !ok || from < 0 || from > len(list) {
			return nil, nil, badPortal("Invalid next_token")
		}
	}
	to := min(from+n, len(list))
	if to < len(list) {
		next = base64.StdEncoding.EncodeToString([]byte(q.action + ":" + itoa(to)))
	}
	return list[from:to], next, nil
}

func listAccounts(s *Server, q *request) (any, error) {
	x, err := s.bearerLocked(q)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(q, x.portal.PageSize, x.portal.Accounts)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, a := range page {
		list = append(list, map[string]string{"accountId": a.ID, "accountName": a.Name, "emailAddress": a.Email})
	}
	return map[string]any{"nextToken": next, "accountList": list}, nil
}

func listAccountRoles(s *Server, q *request) (any, error) {
	x, err := s.bearerLocked(q)
	if err != nil {
		return nil, err
	}
	id := q.query.Get("account_id")
	if !account.MatchString(id) {
		return nil, badPortal("account_id is required")
	}
	a := x.portal.account(id)
	if a == nil {
		return nil, noAccess()
	}
	page, next, err := pageOf(q, x.portal.PageSize, a.Roles)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, r := range page {
		list = append(list, map[string]string{"roleName": r.Name, "accountId": id})
	}
	return map[string]any{"nextToken": next, "roleList": list}, nil
}

func portalLogout(s *Server, q *request) (any, error) {
	x, err := s.bearerLocked(q)
	if err != nil {
		return nil, err
	}
	x.ended = true
	return &answer{status: http.StatusOK, contentType: "application/json"}, nil
}

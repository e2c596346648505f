package fakeaws

import (
	"encoding/xml"
	"net/http"
	"strings"
)

// s3Room answers ListBuckets with an empty list: something to call with
// fresh credentials that is not STS.
var s3Room = &service{
	name: "s3",
	match: func(q *request) (string, bool) {
		if q.http.URL.Path != "/" || q.params.Has("Action") {
			return "", false
		}
		if !strings.Contains(q.http.Header.Get("Authorization"), "/s3/aws4_request") && !strings.Contains(q.query.Get("X-Amz-Credential"), "/s3/aws4_request") {
			return "", false
		}
		if q.http.Method != http.MethodGet {
			return "", true
		}
		return "ListBuckets", true
	},
	success: func(_ *request, result any) *answer {
		return &answer{status: http.StatusOK, contentType: "application/xml", body: append([]byte(xml.Header), marshal(result)...)}
	},
	failure: func(q *request, e *apiError) *answer {
		code := e.code
		switch code { // S3 has its own words for these
		case "InvalidClientTokenId":
			e = fail(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
		case "ExpiredToken":
			e = fail(http.StatusBadRequest, code, "The provided token has expired.")
		case "MissingAuthenticationToken":
			e = accessDenied("Access Denied")
		case "SignatureDoesNotMatch":
			if strings.HasPrefix(e.message, "Signature ") {
				e = fail(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
			}
		}
		return &answer{status: e.status, contentType: "application/xml", code: e.code, body: append([]byte(xml.Header), marshal(struct {
			XMLName                          xml.Name `xml:"Error"`
			Code, Message, RequestId, HostId string
		}{Code: e.code, Message: e.message, RequestId: q.id, HostId: "fakeaws"})...)}
	},
	actions: map[string]action{
		"ListBuckets": {run: listBuckets, permission: "s3:ListAllMyBuckets"},
	},
}

func listBuckets(_ *Server, q *request) (any, error) {
	if !q.who.policy.allows("s3:ListAllMyBuckets", "*") {
		return nil, notAuthorized(q.who, "s3:ListAllMyBuckets", "arn:aws:s3:::*")
	}
	type owner struct{ ID, DisplayName string }
	return struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
		Owner   owner
		Buckets struct{}
	}{Owner: owner{q.who.account, q.who.account}}, nil
}

package fakeaws

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// analyzerRoom is the little of IAM Access Analyzer that checks a policy
// document, by the service model "accessanalyzer" 2019-11-01.
var analyzerRoom = restRoom("access-analyzer", analyzerFailure, &apiError{status: 429, code: "ThrottlingException", message: "Rate exceeded"},
	route{"POST", "/policy/validation", "ValidatePolicy", action{run: validatePolicy, permission: "access-analyzer:ValidatePolicy"}},
)

func analyzerFailure(_ *request, e *apiError) *answer {
	e = generic(e, map[string]string{"InternalFailure": "InternalServerException", "ValidationError": "ValidationException", "AccessDenied": "AccessDeniedException",
		"InvalidClientTokenId": "UnrecognizedClientException", "ExpiredToken": "ExpiredTokenException", "SignatureDoesNotMatch": "InvalidSignatureException"})
	a := jsonAnswer(e.status, map[string]string{"message": e.message})
	a.code = e.code
	return a.errorType(e.code)
}

var actionName = regexp.MustCompile(`^(\*|[a-z0-9-]+:[A-Za-z0-9*?]+)$`)

// validatePolicy finds what the fake itself can judge: documents that are no
// policy (ERROR), actions that are no action (ERROR), and * on everything
// (WARNING).
func validatePolicy(_ *Server, q *request) (any, error) {
	switch q.params.Get("policyType") {
	case "IDENTITY_POLICY", "RESOURCE_POLICY", "SERVICE_CONTROL_POLICY", "RESOURCE_CONTROL_POLICY":
	default:
		return nil, fail(http.StatusBadRequest, "ValidationException", "policyType is not one of the types")
	}
	doc := q.params.Get("policyDocument")
	findings := []any{}
	add := func(kind, code, text string) {
		findings = append(findings, map[string]any{"findingType": kind, "issueCode": code, "findingDetails": text,
			"learnMoreLink": "https://docs.aws.amazon.com/IAM/latest/UserGuide/access-analyzer-reference-policy-checks.html", "locations": []any{}})
	}
	p, err := parsePolicy(doc)
	if err != nil {
		code, text := "MISSING_STATEMENT", "Add a Statement element with Effect and Action to the policy."
		if !json.Valid([]byte(doc)) {
			code, text = "JSON_SYNTAX_ERROR", "Fix the JSON syntax error."
		}
		add("ERROR", code, text)
	} else {
		for _, st := range p.statements {
			for _, a := range st.actions {
				if !actionName.MatchString(a) {
					add("ERROR", "INVALID_ACTION", fmt.Sprintf("The action %s does not exist.", a))
				}
			}
			if !st.deny && contains(st.actions, "*") && contains(st.resources, "*") {
				add("WARNING", "PASS_ROLE_WITH_STAR_IN_ACTION_AND_RESOURCE", "Using wildcards (*) in the action and the resource can be overly permissive.")
			}
		}
		if !strings.Contains(doc, `"2012-10-17"`) {
			add("WARNING", "MISSING_VERSION", "We recommend that you specify the Version element.")
		}
	}
	return map[string]any{"findings": findings}, nil
}

package fakeaws

import (
	"fmt"
	"net/http"
)

// apiError is an error as AWS answers it.
type apiError struct {
	status  int
	code    string
	message string
	// detail is the OAuth error of services that have one, "" for that of
	// the code.
	detail string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// sender says whose fault it is, as the query protocol's Type.
func (e *apiError) sender() string {
	if e.status >= 500 {
		return "Receiver"
	}
	return "Sender"
}

func fail(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func accessDenied(format string, args ...any) *apiError {
	return fail(http.StatusForbidden, "AccessDenied", format, args...)
}

// notAuthorized is the refusal of a policy evaluation.
func notAuthorized(p *principal, action, resource string) *apiError {
	return accessDenied("User: %s is not authorized to perform: %s on resource: %s", p.arn, action, resource)
}

// explicitDeny is the refusal by a Deny of the caller's own policy.
func explicitDeny(p *principal, action, resource string) *apiError {
	return accessDenied("User: %s is not authorized to perform: %s on resource: %s with an explicit deny in an identity-based policy", p.arn, action, resource)
}

func invalid(format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, "ValidationError", format, args...)
}

func badSignature(format string, args ...any) *apiError {
	return fail(http.StatusForbidden, "SignatureDoesNotMatch", format, args...)
}

func invalidToken() *apiError {
	return fail(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
}

func expiredToken() *apiError {
	return fail(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
}

package fakeaws

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"time"
)

var stsRoom = queryRoom("sts", "2011-06-15", "https://sts.amazonaws.com/doc/2011-06-15/", map[string]action{
	// GetCallerIdentity needs no permission: not even a Deny stops it.
	"GetCallerIdentity":         {run: getCallerIdentity},
	"GetSessionToken":           {run: getSessionToken, permission: "sts:GetSessionToken"},
	"GetAccessKeyInfo":          {run: getAccessKeyInfo, permission: "sts:GetAccessKeyInfo"},
	"AssumeRole":                {run: assumeRole, permission: "sts:AssumeRole"},
	"AssumeRoleWithWebIdentity": {run: assumeRoleWithWebIdentity, unsigned: true},
	"AssumeRoleWithSAML":        {run: assumeRoleWithSAML, unsigned: true},
	"GetFederationToken":        {run: getFederationToken, permission: "sts:GetFederationToken"},
})

// xmlTime is AWS's form of a time in an answer.
const xmlTime = "2006-01-02T15:04:05Z"

type xmlCredentials struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string
}

func credentialsOf(q *request, x *session) xmlCredentials {
	q.issued = x.id
	return xmlCredentials{x.id, x.secret, x.token, q.fault.expiration(x.expires, q.now).UTC().Format(xmlTime)}
}

func getCallerIdentity(_ *Server, q *request) (any, error) {
	acct := q.fault.account(q.who.account)
	return struct {
		XMLName xml.Name `xml:"GetCallerIdentityResult"`
		Arn     string
		UserID  string `xml:"UserId"`
		Account string
	}{
		Arn: strings.Replace(q.who.arn, "::"+q.who.account+":", "::"+acct+":", 1), UserID: q.who.id, Account: acct,
	}, nil
}

func getAccessKeyInfo(s *Server, q *request) (any, error) {
	c := checks{params: q.params}
	id := c.text("AccessKeyId", keyIDLimits)
	if err := c.err(); err != nil {
		return nil, err
	}
	var acct string
	if k := s.keys[id]; k != nil {
		acct = k.owner.spec.Account
	} else if x := s.sessions[id]; x != nil {
		acct = x.who.account
	} else {
		return nil, invalid("The access key ID %s is not valid.", id)
	}
	return struct {
		XMLName xml.Name `xml:"GetAccessKeyInfoResult"`
		Account string
	}{Account: acct}, nil
}

func getSessionToken(s *Server, q *request) (any, error) {
	c := checks{params: q.params}
	longest, def := 129600, 43200
	if q.who.user != nil && q.who.user.spec.Root {
		longest, def = 3600, 3600 // more is silently an hour, says the API reference
		c.seconds(900, 129600, def)
	}
	asked := min(c.seconds(900, 129600, def), longest)
	serial, code := c.text("SerialNumber", serialLimits), c.text("TokenCode", codeLimits)
	if err := c.err(); err != nil {
		return nil, err
	}
	if q.who.temp {
		return nil, accessDenied("Cannot call GetSessionToken with session credentials")
	}
	who := *q.who
	at, err := checkMFA(q, serial, code)
	if err != nil {
		return nil, err
	}
	who.mfaAt, who.via = at, viaSessionToken
	x := s.issueLocked(who, asked)
	return struct {
		XMLName     xml.Name `xml:"GetSessionTokenResult"`
		Credentials xmlCredentials
	}{Credentials: credentialsOf(q, x)}, nil
}

// checkMFA judges SerialNumber and TokenCode. Without both it returns what
// the caller's session already has.
func checkMFA(q *request, serial, code string) (time.Time, error) {
	if serial == "" && code == "" {
		return q.who.mfaAt, nil
	}
	if serial == "" || code == "" {
		return time.Time{}, accessDenied("MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.")
	}
	// A session can't give a code again: devices answer for the user's own
	// keys only.
	if u := q.who.user; u != nil && !q.who.temp {
		for _, d := range u.devices {
			if d.serial != serial {
				continue
			}
			if !d.accept(code, q.now) {
				return time.Time{}, accessDenied("MultiFactorAuthentication failed with invalid MFA one time pass code.")
			}
			return q.now, nil
		}
	}
	return time.Time{}, accessDenied("MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user.")
}

func assumeRole(s *Server, q *request) (any, error) {
	in, err := readAssumeRole(q)
	if err != nil {
		return nil, err
	}
	if q.who.user != nil && q.who.user.spec.Root {
		return nil, accessDenied("Roles may not be assumed by root accounts.")
	}
	if q.who.via == viaFederation { // of STS they have GetCallerIdentity alone
		return nil, notAuthorized(q.who, "sts:AssumeRole", in.roleARN)
	}
	if in.mfaAt, err = checkMFA(q, in.serial, in.code); err != nil {
		return nil, err
	}
	if err := in.inherit(q.who); err != nil {
		return nil, err
	}
	r := s.roles[in.roleARN]
	if r == nil { // AWS does not tell a missing role from a forbidden one
		return nil, notAuthorized(q.who, "sts:AssumeRole", in.roleARN)
	}
	if denied := r.refuses(q.who, in); denied != "" {
		return nil, notAuthorized(q.who, denied, in.roleARN)
	}
	if in.seconds > r.spec.MaxSessionDuration {
		return nil, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if q.who.temp && in.seconds > 3600 {
		return nil, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	acct := r.spec.Account
	who := in.session(r)
	who.via = viaRole
	if q.who.role != nil {
		who.via = viaChain
	}
	x := s.issueLocked(who, in.seconds)
	out := struct {
		XMLName         xml.Name `xml:"AssumeRoleResult"`
		SourceIdentity  string   `xml:",omitempty"`
		AssumedRoleUser struct {
			AssumedRoleID string `xml:"AssumedRoleId"`
			Arn           string
		}
		Credentials      xmlCredentials
		PackedPolicySize int `xml:",omitempty"`
	}{SourceIdentity: in.sourceIdentity, Credentials: credentialsOf(q, x), PackedPolicySize: in.packed}
	out.AssumedRoleUser.AssumedRoleID = who.id
	out.AssumedRoleUser.Arn = strings.Replace(who.arn, "::"+acct+":", "::"+q.fault.account(acct)+":", 1)
	return out, nil
}

// assumeInput is a read AssumeRole request.
type assumeInput struct {
	roleARN, sessionName, externalID string
	serial, code, sourceIdentity     string
	seconds                          int
	policy                           *policy // of Policy and PolicyArns together
	policyText                       string
	policyARNs                       []string
	tags                             map[string]string
	transitive                       []string
	packed                           int // percent
	mfaAt, now                       time.Time
	setsIdentity, setsTags           bool // which permissions it needs
}

func badParameter(format string, args ...any) error {
	return fail(http.StatusBadRequest, "InvalidParameterValue", format, args...)
}

func readAssumeRole(q *request) (*assumeInput, error) {
	c := checks{params: q.params}
	in := &assumeInput{
		roleARN:     c.text("RoleArn", roleARNLimits),
		sessionName: c.text("RoleSessionName", sessionNameLimits),
		externalID:  c.text("ExternalId", externalIDLimits),
		serial:      c.text("SerialNumber", serialLimits),
		code:        c.text("TokenCode", codeLimits),
		seconds:     c.seconds(900, 43200, 3600), now: q.now,
	}
	in.sourceIdentity = c.text("SourceIdentity", identityLimits)
	if err := in.readRest(q, &c); err != nil {
		return nil, err
	}
	return in, nil
}

// readRest reads what all calls that make a session take: session policies
// and, where the call has them, tags.
func (in *assumeInput) readRest(q *request, c *checks) error {
	in.tags = map[string]string{}
	doc := c.text("Policy", policyLimits)
	arns := members(q.params, "PolicyArns", ".arn")
	if len(arns) > 10 {
		c.add("'[…]'", "policyArns", "Member must have length less than or equal to 10")
	}
	tags := members(q.params, "Tags", ".Key", ".Value")
	if len(tags) > 50 {
		c.add("'[…]'", "tags", "Member must have length less than or equal to 50")
	}
	tagBytes := 0
	for i, t := range tags {
		c.value(t[0], fmt.Sprintf("tags.%d.member.key", i+1), tagKeyLimits)
		c.value(t[1], fmt.Sprintf("tags.%d.member.value", i+1), tagValueLimits)
		tagBytes += len(t[0]) + len(t[1])
	}
	if err := c.err(); err != nil {
		return err
	}
	if _, _, resource, ok := splitARN(in.roleARN); in.roleARN != "" && (!ok || !strings.HasPrefix(resource, "role/")) {
		return invalid("%s is invalid", in.roleARN)
	}
	if q.params.Has("Policy") {
		p, err := parsePolicy(doc)
		if err != nil {
			return fail(http.StatusBadRequest, "MalformedPolicyDocument", "Syntax errors in policy.")
		}
		in.policy, in.policyText = p, doc
	}
	for _, a := range arns {
		if _, _, resource, ok := splitARN(a[0]); !ok || !strings.HasPrefix(resource, "policy/") {
			return invalid("%s is invalid", a[0])
		}
		in.policyARNs = append(in.policyARNs, a[0])
		in.policy = in.policy.with(a[0])
	}
	seen := map[string]bool{}
	for _, t := range tags {
		if low := strings.ToLower(t[0]); seen[low] {
			return badParameter("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		} else if strings.HasPrefix(low, "aws:") {
			return badParameter("Tag keys beginning with 'aws:' are reserved")
		} else {
			seen[low] = true
		}
		in.tags[t[0]] = t[1]
	}
	for _, k := range members(q.params, "TransitiveTagKeys") {
		if !seen[strings.ToLower(k[0])] {
			return badParameter("The specified transitive tag key must be included in the requested tags.")
		}
		in.transitive = append(in.transitive, k[0])
	}
	// AWS packs policies and tags into a binary form of undisclosed size.
	// Reported: nine tags of 252 bytes are 498 percent.
	in.packed = (tagBytes*100+454)/455 + (len(doc)+40*len(arns))*100/4096
	if in.packed > 100 {
		what := "session tags"
		if tagBytes == 0 {
			what = "session policy"
		}
		return fail(http.StatusBadRequest, "PackedPolicyTooLarge", "Packed size of %s consumes %d%% of allotted space.", what, in.packed)
	}
	return nil
}

// session is the principal that the role becomes.
func (in *assumeInput) session(r *role) principal {
	who := roleSession(r, in.sessionName)
	who.tags, who.transitive, who.sourceIdentity = in.tags, in.transitive, in.sourceIdentity
	who.policy, who.policyText, who.policyARNs = in.policy, in.policyText, in.policyARNs
	return who
}

// inherit adds what the caller's session passes on, and says which
// permissions beside sts:AssumeRole the request needs.
func (in *assumeInput) inherit(who *principal) error {
	for _, k := range who.transitive {
		for own := range in.tags {
			if strings.EqualFold(own, k) {
				return badParameter("One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
			}
		}
		in.transitive = append(in.transitive, k)
		in.tags[k] = who.tags[k]
	}
	if who.sourceIdentity != "" {
		if in.sourceIdentity != "" && in.sourceIdentity != who.sourceIdentity {
			return notAuthorized(who, "sts:SetSourceIdentity", in.roleARN)
		}
		in.sourceIdentity = who.sourceIdentity
	}
	in.setsIdentity, in.setsTags = in.sourceIdentity != "", len(in.tags) > 0
	return nil
}

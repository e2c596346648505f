package fakeaws

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, as AWS's documentation "Signature Version 4 signing
// process" describes it.
const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	amzDate      = "20060102T150405Z"
	maxSkew      = 15 * time.Minute
)

// signature is a request's claim, taken from its headers or its query.
type signature struct {
	keyID, date, region, service, terminator string // the credential scope
	headers                                  []string
	value                                    string
	at                                       time.Time
	token                                    string
	presigned                                bool
	expires                                  time.Duration // presigned only
}

// readSignature finds the claim; a request without one is
// MissingAuthenticationToken, a malformed one IncompleteSignature.
func readSignature(r *http.Request, query url.Values) (*signature, *apiError) {
	return readSignatureAs(r, query, sigAlgorithm)
}

// readSignatureAs is readSignature for another algorithm of the same form.
func readSignatureAs(r *http.Request, query url.Values, algorithm string) (*signature, *apiError) {
	incomplete := func(format string, args ...any) *apiError {
		return fail(http.StatusBadRequest, "IncompleteSignature", format, args...)
	}
	sig := &signature{}
	var cred, signed, at string
	auth := r.Header.Get("Authorization")
	switch {
	case auth != "":
		rest, ok := strings.CutPrefix(auth, algorithm+" ")
		if !ok {
			return nil, incomplete("Unsupported AWS 'algorithm': '%s'", strings.SplitN(auth, " ", 2)[0])
		}
		for part := range strings.SplitSeq(rest, ",") {
			part = strings.TrimSpace(part)
			k, v, ok := strings.Cut(part, "=")
			if !ok {
				return nil, incomplete("'%s' not a valid key=value pair (missing equal-sign) in Authorization header", part)
			}
			switch k {
			case "Credential":
				cred = v
			case "SignedHeaders":
				signed = v
			case "Signature":
				sig.value = v
			}
		}
		at = r.Header.Get("X-Amz-Date")
		if at == "" {
			if t, err := http.ParseTime(r.Header.Get("Date")); err == nil {
				at = t.UTC().Format(amzDate)
			}
		}
		sig.token = r.Header.Get("X-Amz-Security-Token")
		var missing []string
		for _, m := range [][2]string{{"Credential", cred}, {"Signature", sig.value}, {"SignedHeaders", signed}} {
			if m[1] == "" {
				missing = append(missing, "Authorization header requires '"+m[0]+"' parameter.")
			}
		}
		if at == "" {
			missing = append(missing, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
		}
		if missing != nil {
			return nil, incomplete("%s", strings.Join(missing, " "))
		}
	case query.Get("X-Amz-Algorithm") != "":
		sig.presigned = true
		cred, signed, at = query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Date")
		sig.value, sig.token = query.Get("X-Amz-Signature"), query.Get("X-Amz-Security-Token")
		sig.expires = maxSkew
		if v := query.Get("X-Amz-Expires"); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > 604800 {
				return nil, incomplete("X-Amz-Expires must be a number between 1 and 604800")
			}
			sig.expires = time.Duration(n) * time.Second
		}
		if query.Get("X-Amz-Algorithm") != sigAlgorithm || cred == "" || signed == "" || at == "" || sig.value == "" {
			return nil, incomplete("AWS query-string parameters must include 'X-Amz-Algorithm', 'X-Amz-Credential', 'X-Amz-Signature', 'X-Amz-SignedHeaders' and 'X-Amz-Date'.")
		}
	default:
		return nil, fail(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	scope := strings.Split(cred, "/")
	if len(scope) != 5 {
		return nil, incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", cred)
	}
	sig.keyID, sig.date, sig.region, sig.service, sig.terminator = scope[0], scope[1], scope[2], scope[3], scope[4]
	t, err := time.Parse(amzDate, at)
	if err != nil {
		return nil, incomplete("Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", at)
	}
	sig.at = t
	sig.headers = strings.Split(strings.ToLower(signed), ";")
	return sig, nil
}

// checkScope judges the credential scope for a service.
func (g *signature) checkScope(service string, regions []string) *apiError {
	var wrong []string
	if !region.MatchString(g.region) || regions != nil && !matchAny(regions, g.region) {
		wrong = append(wrong, "Credential should be scoped to a valid region, not '"+g.region+"'. ")
	}
	if g.service != service {
		wrong = append(wrong, "Credential should be scoped to correct service: '"+service+"'. ")
	}
	if g.terminator != "aws4_request" {
		wrong = append(wrong, "Credential should be scoped with a valid terminator: 'aws4_request', not '"+g.terminator+"'. ")
	}
	if g.date != g.at.Format("20060102") {
		wrong = append(wrong, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '"+g.date+"' != '"+g.at.Format("20060102")+"', from '"+g.at.Format(amzDate)+"'. ")
	}
	if wrong != nil {
		return badSignature("%s", strings.Join(wrong, ""))
	}
	return nil
}

// checkTime judges the signature's age by the server's clock.
func (g *signature) checkTime(now time.Time) *apiError {
	now = now.UTC()
	late, past := maxSkew, "15 min."
	if g.presigned {
		late = g.expires
		past = strconv.FormatFloat(g.expires.Minutes(), 'f', -1, 64) + " min."
	}
	if limit := now.Add(-late); g.at.Before(limit) {
		return badSignature("Signature expired: %s is now earlier than %s (%s - %s)", g.at.Format(amzDate), limit.Format(amzDate), now.Format(amzDate), past)
	}
	if limit := now.Add(maxSkew); g.at.After(limit) {
		return badSignature("Signature not yet current: %s is still later than %s (%s + 15 min.)", g.at.Format(amzDate), limit.Format(amzDate), now.Format(amzDate))
	}
	return nil
}

// verify computes the signature with the secret and compares.
func (g *signature) verify(r *http.Request, body []byte, secret string) *apiError {
	toSign, err := g.stringToSign(r, body, sigAlgorithm)
	if err != nil {
		return err
	}
	key := mac([]byte("AWS4"+secret), g.date)
	for _, s := range []string{g.region, g.service, "aws4_request"} {
		key = mac(key, s)
	}
	want := hex.EncodeToString(mac(key, toSign))
	if subtle.ConstantTimeCompare([]byte(want), []byte(g.value)) != 1 {
		return badSignature("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

// stringToSign makes the canonical request and from it what is signed.
func (g *signature) stringToSign(r *http.Request, body []byte, algorithm string) (string, *apiError) {
	payload := r.Header.Get("X-Amz-Content-Sha256")
	sum := sha256.Sum256(body)
	switch hash := hex.EncodeToString(sum[:]); {
	case g.service == "s3" && (payload == "UNSIGNED-PAYLOAD" || g.presigned):
		payload = "UNSIGNED-PAYLOAD"
	case payload == "" || payload == hash:
		payload = hash
	default:
		return "", badSignature("The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	if !contains(g.headers, "host") {
		return "", badSignature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	var headers strings.Builder
	for _, h := range g.headers {
		headers.WriteString(h + ":" + headerValue(r, h) + "\n")
	}
	canonical := r.Method + "\n" + canonicalPath(r.URL, g.service) + "\n" + canonicalQuery(r.URL.RawQuery) + "\n" +
		headers.String() + "\n" + strings.Join(g.headers, ";") + "\n" + payload
	hashed := sha256.Sum256([]byte(canonical))
	return algorithm + "\n" + g.at.Format(amzDate) + "\n" + g.date + "/" + g.region + "/" + g.service + "/aws4_request\n" + hex.EncodeToString(hashed[:]), nil
}

func mac(key []byte, s string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(s))
	return m.Sum(nil)
}

func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length": // Go's server moves it out of the headers
		return strconv.FormatInt(r.ContentLength, 10)
	case "transfer-encoding":
		return strings.Join(r.TransferEncoding, ",")
	}
	var v []string
	for _, s := range r.Header.Values(name) {
		v = append(v, strings.Join(strings.Fields(s), " "))
	}
	return strings.Join(v, ",")
}

// canonicalPath escapes the path as it was sent once more, except for S3,
// which signs it as it stands.
func canonicalPath(u *url.URL, service string) string {
	p := u.EscapedPath()
	if p == "" {
		return "/"
	}
	if service == "s3" {
		return p
	}
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = escape(parts[i])
	}
	return strings.Join(parts, "/")
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var pairs []string
	for part := range strings.SplitSeq(raw, "&") {
		k, v, _ := strings.Cut(part, "=")
		k, err1 := url.QueryUnescape(k)
		v, err2 := url.QueryUnescape(v)
		if err1 != nil || err2 != nil || k == "X-Amz-Signature" {
			continue
		}
		// The separator sorts below every character of a key, so that
		// keys are compared before values.
		pairs = append(pairs, escape(k)+"\x00"+escape(v))
	}
	sort.Strings(pairs)
	return strings.ReplaceAll(strings.Join(pairs, "&"), "\x00", "=")
}

// escape is RFC 3986 percent-encoding of all but the unreserved characters.
func escape(s string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
	}
	return b.String()
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

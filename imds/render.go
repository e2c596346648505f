package imds

import (
	"encoding/json"
	"strconv"
	"time"

	"keyfob/internal/cred"
)

// timeForm is the only form of a time that every client reads: a fraction
// breaks boto2, an offset eighteen others.
const timeForm = "2006-01-02T15:04:05Z"

func stamp(t time.Time) string { return t.UTC().Format(timeForm) }

// rendered is a body made of one snapshot, with the headers that depend on
// it, shared by all requests until there is another snapshot. It is
// immutable.
type rendered struct {
	snapshot   *cred.Snapshot
	advertised time.Time
	body       []byte
	length     []string // Content-Length
}

// fits reports whether r is the body for s as it is advertised now.
func (r *rendered) fits(s *cred.Snapshot, advertised time.Time) bool {
	return r != nil && r.snapshot == s && r.advertised.Equal(advertised)
}

func render(s *cred.Snapshot, advertised time.Time, body []byte) *rendered {
	return &rendered{snapshot: s, advertised: advertised, body: body, length: []string{strconv.Itoa(len(body))}}
}

// metadataBody is the document of iam/security-credentials/<role>, spaced as
// EC2 spaces it. account is "" for none.
func metadataBody(s *cred.Snapshot, advertised time.Time, account string) []byte {
	b := make([]byte, 0, 512+s.SessionToken.Len())
	b = append(b, "{\n  \"Code\" : \"Success\",\n  \"LastUpdated\" : \""...)
	b = s.Fetched.UTC().AppendFormat(b, timeForm)
	b = append(b, "\",\n  \"Type\" : \"AWS-HMAC\",\n  \"AccessKeyId\" : "...)
	b = appendString(b, s.AccessKeyID)
	b = append(b, ",\n  \"SecretAccessKey\" : "...)
	b = appendSecret(b, s.SecretAccessKey)
	b = append(b, ",\n  \"Token\" : "...)
	b = appendSecret(b, s.SessionToken)
	b = append(b, ",\n  \"Expiration\" : \""...)
	b = advertised.UTC().AppendFormat(b, timeForm)
	b = append(b, '"')
	if account != "" {
		b = append(b, ",\n  \"AccountId\" : "...)
		b = appendString(b, account)
	}
	return append(b, "\n}"...)
}

// containerBody is the document of the container endpoint.
func containerBody(s *cred.Snapshot, advertised time.Time, roleARN string) []byte {
	b := make([]byte, 0, 512+s.SessionToken.Len())
	b = append(b, `{"RoleArn":`...)
	b = appendString(b, roleARN)
	b = append(b, `,"AccessKeyId":`...)
	b = appendString(b, s.AccessKeyID)
	b = append(b, `,"SecretAccessKey":`...)
	b = appendSecret(b, s.SecretAccessKey)
	b = append(b, `,"Token":`...)
	b = appendSecret(b, s.SessionToken)
	if s.AccountID != "" {
		b = append(b, `,"AccountId":`...)
		b = appendString(b, s.AccountID)
	}
	b = append(b, `,"Expiration":"`...)
	b = advertised.UTC().AppendFormat(b, timeForm)
	return append(b, `"}`...)
}

// refusal is the document that EC2 serves with status 200 when the role
// can't be assumed. It holds no keys: most clients would use them.
func refusal(now time.Time, message string) []byte {
	b := append([]byte(nil), "{\n  \"Code\" : \""+refusedCode+"\",\n  \"Message\" : "...)
	b = appendString(b, message)
	b = append(b, ",\n  \"LastUpdated\" : \""...)
	b = now.UTC().AppendFormat(b, timeForm)
	return append(b, "\"\n}"...)
}

// appendSecret writes a secret as a JSON string. Secrets of AWS need no
// escape; one that does takes the longer way.
func appendSecret(b []byte, s cred.Secret) []byte {
	start := len(b)
	b = append(b, '"')
	b = s.AppendReveal(b)
	for _, c := range b[start+1:] {
		if c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			return appendString(b[:start], s.Reveal())
		}
	}
	return append(b, '"')
}

func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil { // a string can't fail
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

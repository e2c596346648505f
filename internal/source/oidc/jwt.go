package oidc

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// claims are what a token says of itself. As peek gives them nobody has
// vouched for them: they are for messages alone.
type claims struct {
	issuer, subject, nonce, party string
	audience                      []string
	expires                       time.Time // zero where it does not say
	person                        string    // a name for the person, "" for none
}

// peek reads a JWT's claims without looking at its signature.
func peek(token string) (c claims, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return c, false
	}
	return readClaims(payload)
}

func readClaims(payload []byte) (c claims, ok bool) {
	var all map[string]any
	if json.Unmarshal(payload, &all) != nil {
		return c, false
	}
	text := func(name string) string { s, _ := all[name].(string); return s }
	c = claims{issuer: text("iss"), subject: text("sub"), nonce: text("nonce"), party: text("azp")}
	switch aud := all["aud"].(type) {
	case string:
		c.audience = []string{aud}
	case []any:
		for _, x := range aud {
			if s, ok := x.(string); ok {
				c.audience = append(c.audience, s)
			}
		}
	}
	if exp, ok := all["exp"].(float64); ok && exp > 0 && exp < 1<<40 {
		c.expires = time.Unix(int64(exp), 0).UTC()
	}
	for _, name := range []string{"email", "preferred_username", "upn"} {
		if c.person = text(name); c.person != "" {
			break
		}
	}
	return c, true
}

// forPeople is who made the token and for whom.
func (c claims) forPeople() string {
	issuer, audience := "an issuer that it does not name", "no audience"
	if c.issuer != "" {
		issuer = "issuer " + printable(c.issuer, 200)
	}
	if len(c.audience) > 0 {
		audience = "audience " + printable(strings.Join(c.audience, ", "), 200)
	}
	return issuer + ", " + audience
}

package signin

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// cookieLife is how long cookies of the browser's session are kept from one
// sign-in to the next. Most providers' sessions are such cookies, which last
// for days in a browser that nobody closes; ours closes after each sign-in.
// How long they are good for the provider decides.
const cookieLife = 24 * time.Hour

// keepCookies gives the cookies that would end with the browser an end of
// their own. They stay in the browser's store and nowhere else. A cookie that
// can't be changed ends with the browser.
func (v *samlVisit) keepCookies(ctx context.Context) {
	t := v.b.tools
	var jar struct {
		Cookies []map[string]json.RawMessage `json:"cookies"`
	}
	if t.call(ctx, "", "Storage.getCookies", nil, &jar) != nil {
		return
	}
	expires := float64(time.Now().Add(cookieLife).Unix())
	for _, c := range jar.Cookies {
		var session, secure bool
		var domain, path string
		_ = json.Unmarshal(c["session"], &session)
		_ = json.Unmarshal(c["secure"], &secure)
		_ = json.Unmarshal(c["domain"], &domain)
		_ = json.Unmarshal(c["path"], &path)
		if !session || domain == "" {
			continue
		}
		cookie := map[string]any{"expires": expires}
		for _, name := range []string{"name", "value", "path", "secure", "httpOnly", "sameSite", "priority", "sourceScheme", "sourcePort", "partitionKey"} {
			if value, ok := c[name]; ok {
				cookie[name] = value
			}
		}
		if strings.HasPrefix(domain, ".") {
			cookie["domain"] = domain
		} else { // of this host alone: said by the address, without a domain
			scheme := "http://"
			if secure {
				scheme = "https://"
			}
			cookie["url"] = scheme + domain + path
		}
		if t.call(ctx, "", "Storage.setCookies", map[string]any{"cookies": []any{cookie}}, nil) != nil && ctx.Err() != nil {
			return
		}
	}
}

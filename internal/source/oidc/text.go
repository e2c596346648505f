package oidc

import (
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
)

// printable is s as one line of at most n bytes without control characters.
func printable(s string, n int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return ' '
		}
		return r
	}, s)), " ")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

func quoted(s string) string { return strconv.Quote(printable(s, 200)) }

// scrub takes secrets out of a text.
func scrub(s string, secrets []string) string {
	for _, x := range secrets {
		if len(x) >= 4 {
			s = strings.ReplaceAll(s, x, "[redacted]")
		}
	}
	return s
}

// clause is a message without its full stop, to stand inside a line.
func clause(message string) string { return strings.TrimRight(message, ". ") }

// withoutUser cuts user and password out of a URL that may not parse.
func withoutUser(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		scheme, rest = "", raw
	} else {
		scheme += "://"
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return scheme + rest
}

// secureURL: tokens travel over TLS. The one exception is a provider on this
// machine, and then every address of it must be on this machine.
func secureURL(u, issuer *url.URL) bool {
	if u.Host == "" || u.User != nil {
		return false
	}
	switch u.Scheme {
	case "https":
		return true
	case "http":
		return issuer.Scheme == "http" && onLoopback(u) && onLoopback(issuer)
	}
	return false
}

func onLoopback(u *url.URL) bool {
	if strings.EqualFold(u.Hostname(), "localhost") {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}

func silent() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

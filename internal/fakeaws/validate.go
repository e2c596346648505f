package fakeaws

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// checks collects what is wrong with a request's parameters, in the words of
// AWS's own validation.
type checks struct {
	params url.Values
	wrong  []string
}

func (c *checks) add(value, name, constraint string) {
	c.wrong = append(c.wrong, fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, name, constraint))
}

func (c *checks) err() error {
	switch len(c.wrong) {
	case 0:
		return nil
	case 1:
		return invalid("1 validation error detected: %s", c.wrong[0])
	}
	return invalid("%d validation errors detected: %s", len(c.wrong), strings.Join(c.wrong, "; "))
}

// limits are a string parameter's constraints.
type limits struct {
	min, max int
	pattern  *regexp.Regexp
	shown    string // the pattern as AWS prints it
	required bool
}

var (
	nameRE   = regexp.MustCompile(`^[\w+=,.@-]*$`)
	extIDRE  = regexp.MustCompile(`^[\w+=,.@:/-]*$`)
	serialRE = regexp.MustCompile(`^[\w+=/:,.@-]*$`)
	digitsRE = regexp.MustCompile(`^\d*$`)
	keyIDRE  = regexp.MustCompile(`^\w*$`)
	tagRE    = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

	sessionNameLimits = limits{2, 64, nameRE, `[\w+=,.@-]*`, true}
	identityLimits    = limits{2, 64, nameRE, `[\w+=,.@-]*`, false}
	roleARNLimits     = limits{20, 2048, nil, "", true}
	externalIDLimits  = limits{2, 1224, extIDRE, `[\w+=,.@:\/-]*`, false}
	serialLimits      = limits{9, 256, serialRE, `[\w+=/:,.@-]*`, false}
	codeLimits        = limits{6, 6, digitsRE, `[\d]*`, false}
	policyLimits      = limits{1, 2048, nil, "", false}
	tagKeyLimits      = limits{1, 128, tagRE, `[\p{L}\p{Z}\p{N}_.:/=+\-@]+`, true}
	tagValueLimits    = limits{0, 256, tagRE, `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`, false}
	keyIDLimits       = limits{16, 128, keyIDRE, `[\w]+`, true}
	userNameLimits    = limits{1, 128, nameRE, `[\w+=,.@-]+`, false}
)

// text checks a string parameter and returns it.
func (c *checks) text(param string, l limits) string {
	v := c.params.Get(param)
	if !c.params.Has(param) {
		if l.required {
			c.add("null", lowerFirst(param), "Member must not be null")
		}
		return ""
	}
	c.value(v, lowerFirst(param), l)
	return v
}

func (c *checks) value(v, name string, l limits) {
	quoted := "'" + v + "'"
	if n := utf8.RuneCountInString(v); n < l.min {
		c.add(quoted, name, "Member must have length greater than or equal to "+strconv.Itoa(l.min))
	} else if n > l.max {
		c.add(quoted, name, "Member must have length less than or equal to "+strconv.Itoa(l.max))
	}
	if l.pattern != nil && !l.pattern.MatchString(v) {
		c.add(quoted, name, "Member must satisfy regular expression pattern: "+l.shown)
	}
}

// seconds checks DurationSeconds and returns it, or def when it is absent.
func (c *checks) seconds(min, max, def int) int {
	v := c.params.Get("DurationSeconds")
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	switch {
	case err != nil:
		c.add("'"+v+"'", "durationSeconds", "Member must be an integer")
	case n < min:
		c.add("'"+v+"'", "durationSeconds", "Member must have value greater than or equal to "+strconv.Itoa(min))
	case n > max:
		c.add("'"+v+"'", "durationSeconds", "Member must have value less than or equal to "+strconv.Itoa(max))
	}
	return n
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

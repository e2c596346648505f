package cli

import (
	"fmt"
	"strings"
	"time"
)

// expiry is a duration flag that also knows days.
type expiry time.Duration

func (e *expiry) String() string {
	const day = 24 * time.Hour
	if d := time.Duration(*e); d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return time.Duration(*e).String()
}

func (e *expiry) Set(s string) error {
	rest := s
	var days time.Duration
	if d, after, ok := strings.Cut(s, "d"); ok {
		var n int
		if _, err := fmt.Sscanf(d, "%d", &n); err != nil || fmt.Sprint(n) != d || n > 36500 {
			return fmt.Errorf("it is no duration such as 90m, 12h or 7d")
		}
		days, rest = time.Duration(n)*24*time.Hour, after
	}
	var d time.Duration
	if rest != "" {
		var err error
		if d, err = time.ParseDuration(rest); err != nil {
			return fmt.Errorf("it is no duration such as 90m, 12h or 7d")
		}
	}
	if d += days; d < time.Second {
		return fmt.Errorf("it must be a second or more")
	}
	*e = expiry(d)
	return nil
}

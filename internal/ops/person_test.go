package ops

import (
	"regexp"
	"strings"
	"testing"
)

var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

func TestPersonName(t *testing.T) {
	for _, x := range []struct{ login, host, want string }{
		{"alice", "laptop.example.com", "alice"},
		{`CORP\alice`, "laptop", "alice"},
		{"alice@corp.example", "laptop", "alice@corp.example"},
		{"root", "web1.example.com", "root@web1"},
		{"Administrator", "PC-7", "Administrator@PC-7"},
		{"ec2-user", "", "ec2-user"},
		{"jürgen k", "x", "j-rgen-k"},
		{"a", "x1", "a@x1"},
		{"a", "", "user-a"},
		{"", "box", "keyfob@box"},
		{"", "", "keyfob"},
		{"日本", "box", "keyfob@box"},
		{strings.Repeat("x", 80), "box", strings.Repeat("x", 57)},
		{"root", strings.Repeat("y", 80), "root@" + strings.Repeat("y", 52)},
	} {
		got := PersonName(x.login, x.host)
		if got != x.want || !sessionName.MatchString("keyfob-"+got) || !sessionName.MatchString(got) {
			t.Errorf("PersonName(%q, %q) = %q, want %q", x.login, x.host, got, x.want)
		}
	}
	if got := ThisPerson(); !sessionName.MatchString(got) || got != ThisPerson() {
		t.Errorf("this person is %q", got)
	}
}

package ops

import (
	"os"
	"os/user"
	"slices"
	"strings"
)

// Limits of names in AWS's logs.
const (
	// maxPerson leaves room for "keyfob-" before it in the 64 characters of
	// a role session name.
	maxPerson = 57
	// maxFederated is GetFederationToken's limit of Name.
	maxFederated = 32
)

// accounts are user names that many machines and people share: by
// themselves they tell nobody who it was.
var accounts = []string{"root", "administrator", "admin", "system", "nobody", "user", "keyfob",
	"ubuntu", "debian", "ec2-user", "fedora", "centos", "rocky", "alpine", "vagrant", "vscode", "codespace", "runner", "jenkins", "app"}

// PersonName is the name by which CloudTrail shows who is behind a session:
// the user's login name, with the machine's behind it where the login name
// alone names nobody. It has 2 to 57 of the characters that AWS takes in role
// session names and source identities ([\w+=,.@-]); others become "-". It
// does not change with time, so that one person is one name.
func PersonName(login, host string) string {
	if i := strings.LastIndexByte(login, '\\'); i >= 0 { // DOMAIN\user of Windows
		login = login[i+1:]
	}
	login = strings.Trim(legal(login), "-")
	host, _, _ = strings.Cut(host, ".")
	host = strings.Trim(legal(host), "-")
	if login == "" {
		login = "keyfob"
	}
	if host != "" && (len(login) < 2 || slices.Contains(accounts, strings.ToLower(login))) {
		login += "@" + host
	}
	if len(login) < 2 {
		login = "user-" + login
	}
	return login[:min(len(login), maxPerson)]
}

// ThisPerson is PersonName of the user who runs this process, on this
// machine.
func ThisPerson() string {
	login := ""
	if u, err := user.Current(); err == nil {
		if login = u.Username; login == "" {
			login = u.Uid
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return PersonName(login, host)
}

// legal is name with "-" for each character that AWS does not take.
func legal(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r < 0x80 && strings.ContainsRune("+=,.@_-", r) {
			return r
		}
		return '-'
	}, name)
}

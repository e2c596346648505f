package access

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"keyfob/internal/cred"
)

// userID turns a name, a decimal id or a SID into what peer.Caller.UID holds.
func userID(name string) (string, error) {
	if id, ok, err := numericID(name, "user"); ok {
		return id, err
	}
	u, err := user.Lookup(name)
	if err == nil {
		return u.Uid, nil
	}
	if id, err := getentID("passwd", name); err == nil {
		return id, nil
	}
	return "", cred.WithHint(fmt.Errorf("there is no user %q", name), "a decimal user id works for users that this machine does not know by name")
}

// groupID is userID for groups.
func groupID(name string) (string, error) {
	if id, ok, err := numericID(name, "group"); ok {
		return id, err
	}
	g, err := user.LookupGroup(name)
	if err == nil {
		return g.Gid, nil
	}
	if id, err := getentID("group", name); err == nil {
		return id, nil
	}
	return "", cred.WithHint(fmt.Errorf("there is no group %q", name), "a decimal group id works for groups that this machine does not know by name")
}

// numericID is the id that name is already, in its simplest form; ok is
// whether it has the form of one.
func numericID(name, kind string) (id string, ok bool, err error) {
	if name != "" && strings.Trim(name, "0123456789") == "" {
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return "", true, fmt.Errorf("%s is no %s id", name, kind)
		}
		return strconv.FormatUint(n, 10), true, nil
	}
	return name, strings.HasPrefix(name, "S-1-"), nil
}

package cli

import "os/user"

// homeOfUser is the home directory of the user database, "" if it has none
// for us.
func homeOfUser() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.HomeDir
}

package settings

import "golang.org/x/sys/windows"

// userSID names this process's user in the pipe's name.
func userSID() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", err
	}
	return u.User.Sid.String(), nil
}

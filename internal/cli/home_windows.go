package cli

// homeOfUser is nothing here: USERPROFILE is always set.
func homeOfUser() string { return "" }

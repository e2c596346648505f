package daemon

// writableByOthers judges nothing: below %ProgramData%\keyfob, which the
// installation makes, the access lists are inherited.
func writableByOthers(string) error { return nil }

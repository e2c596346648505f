package peer

import "golang.org/x/sys/windows"

// SeesOthers reports whether this process may look at other users' processes:
// its token is an administrator's or the system's.
func SeesOthers() bool { return windows.GetCurrentProcessToken().IsElevated() }

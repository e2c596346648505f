package daemon

import "golang.org/x/sys/windows"

// harden keeps error dialogs and their dumps away
// (SetErrorMode, SEM_NOGPFAULTERRORBOX).
func harden() error {
	windows.SetErrorMode(windows.SEM_FAILCRITICALERRORS | windows.SEM_NOGPFAULTERRORBOX)
	return nil
}

package login

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// rename waits, for at most a second, while another process has the file
// open.
func rename(from, to string) error {
	for end := time.Now().Add(time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := os.Rename(from, to)
		busy := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_LOCK_VIOLATION)
		if err == nil || !busy || time.Now().After(end) {
			return err
		}
	}
}

// syncDir does nothing: Windows has no directory to sync.
func syncDir(string) error { return nil }

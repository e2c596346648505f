package loopback

import (
	"errors"

	"golang.org/x/sys/windows"
)

// taken: Windows answers WSAEACCES where the other program wants the port for
// itself alone.
func taken(err error) bool {
	return errors.Is(err, windows.WSAEADDRINUSE) || errors.Is(err, windows.WSAEACCES)
}

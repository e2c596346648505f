package keyring

import (
	"fmt"
	"io"
	"os"

	"keyfob/keystore/internal/wire"
)

// Main serves one request and returns the exit code: 0 when an answer was
// given, whatever it says; 1 when the channel broke; 2 when this was not
// started by keyfobd.
func Main() int {
	harden()
	in, out, err := channel()
	if err != nil || len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "keyfob-keyring: cannot run on its own: keyfobd starts it")
		return 2
	}
	return serve(in, out)
}

// serve reads the request, does it and writes the answer. When the other
// end goes away first, nobody waits for the answer any more, and what the
// operation does meanwhile ends with the process.
func serve(in io.Reader, out io.Writer) int {
	var req wire.Request
	if err := wire.Read(in, &req); err != nil {
		return 1
	}
	done := make(chan wire.Response, 1)
	go func() { done <- do(&req) }()
	gone := make(chan struct{})
	go func() {
		_, _ = in.Read(make([]byte, 1)) // nothing more comes: this is the end
		close(gone)
	}()
	select {
	case resp := <-done:
		resp.Version = wire.Version
		if wire.Write(out, resp) != nil {
			return 1
		}
		return 0
	case <-gone:
		return 1
	}
}

// Package hot is `keyfob credential-process` for a daemon that runs, and
// nothing else: SDKs run it for every few signatures, so it is measured
// against the smallest Go program that prints a fixed answer.
//
// Half of what a larger Go program takes more than that one goes into
// initialising its packages. Go initialises packages in the order of their
// import paths as soon as those they import are ready (Go specification,
// "Program initialization"). This package imports syscall alone, so its turn
// comes before that of os, reflect, encoding/json and the rest of keyfob. In
// keyfob itself (package hot/early does it) the credentials are printed, and
// the process has ended, before those are touched. Whatever is out of the
// ordinary is left to package cli, together with what was answered already.
//
// What it decides (socket, profile, what of the environment is told) package
// settings and package cli decide too; tests hold them to each other.
package hot

// Answer is what Ask found out.
type Answer struct {
	// Asked: the request was sent. Otherwise there is nothing else here, and
	// the whole command is still to be done.
	Asked bool
	// Document is the credential_process document, nil if Reply is something
	// else.
	Document []byte
	// Hello and Reply are the daemon's two lines; a Reply of nil means that
	// it closed the connection, or was silent until the time was up.
	Hello, Reply []byte
	TimedOut     bool
	PID          int // the process that listens, as the kernel says

	close func() // nil where there is nothing to close
}

// Close closes the connection of an answer with a Document. A process that
// ends at once need not: it would wake the daemon before the answer is
// printed.
func (a Answer) Close() {
	if a.close != nil {
		a.close()
	}
}

// DaemonVersion takes the version out of a daemon's Hello, "" if it is not
// where keyfobd writes it.
func DaemonVersion(hello []byte) string {
	const before = `{"keyfob":1,"version":"`
	if len(hello) < len(before) || string(hello[:len(before)]) != before {
		return ""
	}
	for i, c := range hello[len(before):] {
		switch c {
		case '"':
			return string(hello[len(before) : len(before)+i])
		case '\\':
			return ""
		}
	}
	return ""
}

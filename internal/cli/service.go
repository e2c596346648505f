package cli

import (
	"errors"
	"os/exec"
)

// service is `keyfob service …`: keyfobd does it, with our arguments, streams
// and exit code. What installs a daemon is the daemon's own file, so that the
// service that is installed is the one that was asked.
func (a *app) service(in invocation) int {
	const what = "manage the service"
	program, err := findDaemon()
	if err != nil {
		return a.fail(what, err)
	}
	cmd := exec.Command(program, append([]string{"service"}, in.rest...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = a.Stdin, a.Stdout, a.Stderr, a.Environ
	err = cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &ended) && ended.ExitCode() >= 0:
		return ended.ExitCode()
	case errors.As(err, &ended):
		return exitFailed
	}
	return a.fail(what, err)
}

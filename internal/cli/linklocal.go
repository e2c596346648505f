package cli

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
)

// linkLocal is `keyfob link-local …`: keyfobd does it, as it does the
// service, because the units that hold the address run that very file.
func (a *app) linkLocal(in invocation) int {
	const what = "manage the metadata address"
	program, err := findDaemon()
	if err != nil {
		return a.fail(what, err)
	}
	cmd := exec.Command(program, append([]string{"service", "link-local"}, in.rest...)...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = a.Stdin, a.Stdout, &said, a.Environ
	err = cmd.Run()
	// Its messages are keyfob's: one command was given, and one answers.
	for line := range strings.Lines(said.String()) {
		if rest, ok := strings.CutPrefix(line, "keyfobd: "); ok {
			line = "keyfob: " + rest
		}
		a.say(strings.TrimSuffix(line, "\n"))
	}
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

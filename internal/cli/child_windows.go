package cli

import (
	"os"
	"os/exec"
	"os/signal"
)

// child is the program of exec. The console sends Ctrl-C to both of us.
type child struct{ signals chan os.Signal }

func newChild() *child {
	c := &child{signals: make(chan os.Signal, 1)}
	signal.Notify(c.signals, os.Interrupt)
	return c
}

func (c *child) close() { signal.Stop(c.signals) }

// run starts cmd and returns its exit code.
func (c *child) run(cmd *exec.Cmd, _ *os.Process) (int, error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	state, err := cmd.Process.Wait()
	if err != nil {
		return 0, err
	}
	return state.ExitCode(), nil
}

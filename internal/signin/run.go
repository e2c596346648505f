package signin

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// endGrace is how long a program that was told to end may take.
const endGrace = time.Second

// command is a program of the session that ends when ctx does. It stays in
// our process group: it has the terminal when we have it, and whoever kills
// the group kills it too.
func command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not there", errNobody, name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = childEnv()
	cmd.WaitDelay = endGrace
	prepare(cmd)
	return cmd, nil
}

//go:build !linux

package daemon

import "context"

// waitEnd returns when the process has ended, or ctx.
func waitEnd(ctx context.Context, pid int, start uint64) { poll(ctx, pid, start) }

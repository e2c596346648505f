//go:build !windows

package service

import "context"

// Host runs the daemon as a service: under every manager of Unix that is
// running it, until ctx, which signals end, does. run calls its argument once
// every listener accepts.
func Host(ctx context.Context, system bool, run func(ctx context.Context, ready func()) error) error {
	return run(ctx, func() {})
}

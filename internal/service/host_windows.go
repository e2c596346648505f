package service

import (
	"context"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
)

// Host runs the daemon as a service: one of the service control manager if
// that started this process, else in place, as the logon task does. run calls
// its argument once every listener accepts; until then, and when run fails
// before, the manager is not told that the service runs.
//
// It answers the manager itself, because the library's Run does not end when
// the daemon does: a dead one would look alive, and not be started again.
func Host(ctx context.Context, system bool, run func(ctx context.Context, ready func()) error) error {
	is, err := svc.IsWindowsService()
	if err != nil {
		return fail("", "cannot tell whether Windows runs this as a service: %w", err)
	}
	if !is {
		if !system {
			// The task would show the person a console window for as long
			// as the daemon runs.
			_, _, _ = windows.NewLazySystemDLL("kernel32.dll").NewProc("FreeConsole").Call()
		}
		return run(ctx, func() {})
	}
	h := &handler{ctx: ctx, run: run}
	if err := svc.Run(Name, h); err != nil {
		return fail("", "cannot run as a service: %w", err)
	}
	return h.err
}

type handler struct {
	ctx context.Context
	run func(context.Context, func()) error
	err error
}

// startPatience is told to the manager while the daemon starts.
const startPatience = 30 * time.Second

// Execute is svc.Handler's.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (bool, uint32) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	changes <- svc.Status{State: svc.StartPending, WaitHint: uint32(startPatience.Milliseconds())}
	ready, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- h.run(ctx, func() {
			select {
			case ready <- struct{}{}:
			default:
			}
		})
	}()
	for {
		select {
		case <-ready:
			changes <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown}
		case h.err = <-ended:
			if h.err != nil {
				return true, 1
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				changes <- r.CurrentStatus
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				changes <- svc.Status{State: svc.StopPending, WaitHint: uint32(startPatience.Milliseconds())}
				cancel()
			}
		}
	}
}

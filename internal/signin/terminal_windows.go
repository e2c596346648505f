package signin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

func hasTerminal() bool {
	f, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// terminalName: a pinentry of Windows has a window.
func terminalName() string { return "" }

func keepTerminal(string) (restore func()) { return func() {} }

// askTerminal asks on the console. What is typed is not shown. When ctx ends
// meanwhile, the process ends with it.
func askTerminal(ctx context.Context, p prompt) (string, error) {
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w: there is no console", errNobody)
	}
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		_ = in.Close()
		return "", fmt.Errorf("%w: there is no console", errNobody)
	}
	defer func() { _ = out.Close() }()
	if p.fail != "" {
		_, _ = out.WriteString("keyfob: " + p.fail + "\r\n")
	}
	_, _ = out.WriteString(p.short)
	old, err := term.GetState(int(in.Fd()))
	if err != nil {
		return "", errors.New("its modes can't be read")
	}
	type result struct {
		line []byte
		err  error
	}
	got := make(chan result, 1)
	go func() {
		defer func() { _ = in.Close() }()
		line, err := term.ReadPassword(int(in.Fd()))
		got <- result{line, err}
	}()
	select {
	case r := <-got:
		_, _ = out.WriteString("\r\n")
		if r.err != nil {
			return "", errors.New("it can't be read")
		}
		return string(r.line), nil
	case <-ctx.Done():
		// The reader can't be woken; it ends with the process.
		_ = term.Restore(int(in.Fd()), old)
		_, _ = out.WriteString("\r\n")
		return "", context.Cause(ctx)
	}
}

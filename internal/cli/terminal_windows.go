package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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

// askTerminal asks on the console. A question that ctx settles meanwhile
// still waits for its line. Errors: errNoTerminal, errInputEnded (Ctrl-Z), ctx's.
func askTerminal(ctx context.Context, question string, echo bool) (string, error) {
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return "", errNoTerminal
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		return "", errNoTerminal
	}
	defer func() { _ = out.Close() }()
	_, _ = out.WriteString(question)
	if echo {
		line, err := bufio.NewReader(in).ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return "", errInputEnded
		}
		if err != nil && line == "" {
			return "", fmt.Errorf("cannot read the console: %w", err)
		}
		return trimCR([]byte(trimLF(line))), ctx.Err()
	}
	line, err := term.ReadPassword(int(in.Fd()))
	_, _ = out.WriteString("\r\n")
	if errors.Is(err, io.EOF) {
		return "", errInputEnded
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the console: %w", err)
	}
	return string(line), ctx.Err()
}

// waitForInput has no way on Windows to wait for a pipe and for ctx.
func waitForInput(context.Context, *os.File) (wait func() error, done func()) {
	return nil, func() {}
}

func trimLF(s string) string {
	if n := len(s); n > 0 && s[n-1] == '\n' {
		return s[:n-1]
	}
	return s
}

// writeTerminal shows text on the console; false if there is none.
func writeTerminal(text string) bool {
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = out.Close() }()
	_, err = out.WriteString(text)
	return err == nil
}

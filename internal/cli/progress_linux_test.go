package cli

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whoever waits before a terminal is told what for, whichever command it is;
// a program that keyfob serves is told nothing.
func TestWhoWaitsIsTold(t *testing.T) {
	t.Parallel()
	for command, told := range map[string]bool{
		configuring: true, "console": true,
		"exec": false, "env": false,
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			tty := newConsole(t)
			out, err := os.OpenFile(tty.name, os.O_RDWR|syscall.O_NOCTTY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			a := &app{Process: Process{Environ: []string{"TERM=xterm"}, Stdin: os.Stdin, Stdout: out, Stderr: out}}
			ctx, cancel := context.WithTimeout(t.Context(), 5*progressTick/2)
			defer cancel()
			(&asker{app: a, command: command}).waitFor(ctx, "the sign-in")
			if told {
				tty.expect("keyfob: waiting for the sign-in, 1s")
				tty.expect("keyfob: waiting for the sign-in, 2s")
				for end := time.Now().Add(5 * time.Second); !strings.HasSuffix(tty.text(), clearLine); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("the line is left standing: %q", tty.text())
					}
				}
			} else if text := tty.text(); text != "" {
				t.Errorf("it says %q", text)
			}
		})
	}
}

//go:build !windows

package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keyfob/internal/control"
)

// TestMain makes keyfob and a fake keyfobd of the test program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"keyfob": func() {
			version := os.Getenv("KEYFOB_TEST_VERSION")
			if version == "" {
				version = "0.1.0"
			}
			os.Exit(Main(os.Args[1:], Process{Version: version, Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}))
		},
		"keyfobd":       func() { os.Exit(fakeDaemon()) },
		"sigcount":      countSignals,
		"keyfob-signin": func() { os.Exit(fakeSignin()) },
		"opener":        func() { os.Exit(fakeOpener()) },
	})
}

// countSignals is a program that says how many SIGINTs it got, until SIGTERM.
func countSignals() {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	fmt.Println("up")
	n := 0
	for s := range c {
		if s == syscall.SIGTERM {
			os.Exit(5)
		}
		n++
		fmt.Printf("int-%d\n", n)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			if err := os.MkdirAll(filepath.Join(home, ".aws"), 0o700); err != nil {
				return err
			}
			run := filepath.Join(e.WorkDir, "run")
			e.Setenv("HOME", home)
			e.Setenv("XDG_RUNTIME_DIR", run)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			e.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			e.Setenv("DATA", filepath.Join(home, "data", "keyfob"))
			e.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/dev/null")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each program takes a second with -race
			e.Defer(func() { stopFakes(e.WorkDir) })
			return os.MkdirAll(filepath.Join(home, "data", "keyfob"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":  scriptCode,
			"asked": scriptAsked,
		},
	})
}

// scriptCode is `code N CMD …`: CMD ends with the exit code N.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N CMD …")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%s ended with %s, want %s\nstdout: %s\nstderr: %s", strings.Join(args[1:], " "), got, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// scriptAsked is `asked TEXT …`: the last request to the fake daemon that is
// no version or stop has all of the texts in it.
func scriptAsked(ts *testscript.TestScript, neg bool, args []string) {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(filepath.Join(ts.Getenv("DATA"), "asked"))), "\n")
	last := ""
	for _, l := range lines {
		if !strings.HasPrefix(l, "version ") && !strings.HasPrefix(l, "stop ") && !strings.HasPrefix(l, "list ") {
			last = l
		}
	}
	for _, want := range args {
		if strings.Contains(last, want) == neg {
			ts.Fatalf("the daemon was asked %s; %q in it: %v", last, want, !neg)
		}
	}
}

// stopFakes ends every fake daemon below dir.
func stopFakes(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type() != os.ModeSocket {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if c, err := control.Dial(ctx, path); err == nil {
			_ = c.Call(ctx, control.MethodStop, control.Empty{}, nil, nil)
			_ = c.WaitClosed(ctx)
			_ = c.Close()
		}
		return nil
	})
}

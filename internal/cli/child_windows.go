package cli

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"
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
	if err := throughShell(cmd); err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	state, err := cmd.Process.Wait()
	if err != nil {
		return 0, err
	}
	return state.ExitCode(), nil
}

// throughShell has a batch file run by cmd.exe with its arguments quoted for
// that: Windows would give them to it as they are written for programs, and
// "a&b" would run b.
func throughShell(cmd *exec.Cmd) error {
	switch strings.ToLower(filepath.Ext(cmd.Path)) {
	case ".bat", ".cmd":
	default:
		return nil
	}
	system, err := windows.GetSystemDirectory()
	if err != nil {
		return err
	}
	line, err := batchLine(cmd.Path, cmd.Args[1:])
	if err != nil {
		return err
	}
	cmd.Path = filepath.Join(system, "cmd.exe")
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.CmdLine = line
	return nil
}

// batchLine is the command line with which cmd.exe runs a batch file. All
// arguments stand in quotes, where only " and % mean something: the first is
// doubled, and the second is followed by an expansion that gives nothing, so
// that no name of a variable comes about. What ends a line can't be quoted.
// (A doubled quote inside quotes is a quote to all programs, but to some it
// ends the quoted part too, and blanks after it part the argument.)
func batchLine(script string, args []string) (string, error) {
	if strings.ContainsAny(script, "\"%") {
		return "", fmt.Errorf("cmd.exe can't be given the name %q", script)
	}
	var b strings.Builder
	b.WriteString(`cmd.exe /e:on /v:off /d /c ""` + script + `"`)
	for _, arg := range args {
		if strings.ContainsAny(arg, "\r\n\x00") {
			return "", fmt.Errorf("cmd.exe can't be given the argument %q", arg)
		}
		b.WriteString(` "`)
		slashes := 0
		for i := range len(arg) {
			switch arg[i] {
			case '\\':
				slashes++
			case '"': // \" would end the quotes for a program that the file runs
				b.WriteString(strings.Repeat(`\`, slashes) + `"`)
				slashes = 0
			case '%':
				b.WriteString(`%%cd:~,`)
				slashes = 0
			default:
				slashes = 0
			}
			b.WriteByte(arg[i])
		}
		b.WriteString(strings.Repeat(`\`, slashes) + `"`)
	}
	return b.String() + `"`, nil
}

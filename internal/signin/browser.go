package signin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// browser is a browser that we have started and drive.
type browser struct {
	name  string // of its program, for messages
	cmd   *exec.Cmd
	tools *devtools
	ended chan struct{} // closed when the program has ended and is collected
	free  func()        // what belongs to the program at the system's
}

const (
	// closeGrace is how long a browser may take to write its cookies and end.
	closeGrace = 5 * time.Second
	// abandonGrace is less than what whoever told us to end gives us.
	abandonGrace = 1500 * time.Millisecond
)

// browserError: there is no browser that can be driven, or no screen for it.
type browserError struct{ why string }

func (e *browserError) Error() string { return e.why }

// Is makes it an errNobody, which decides the exit code.
func (e *browserError) Is(target error) bool { return target == errNobody }

func noBrowser(format string, args ...any) error { return &browserError{fmt.Sprintf(format, args...)} }

// howToGetOne is what a person can do where no browser is found.
const howToGetOne = "install Google Chrome, Chromium or Microsoft Edge"

// browserArgs are the arguments of every browser; dir is held.
func browserArgs(dir *browserDir, headless bool, more []string) []string {
	args := []string{
		"--user-data-dir=" + dir.path,
		"--no-first-run", "--no-default-browser-check", "--disable-search-engine-choice-screen", "--hide-crash-restore-bubble",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-breakpad", // what it crashed with is nobody's
		// No directory can be made below a file: pages, which hold the
		// assertion where a provider forgot to forbid storing them, are kept
		// in memory.
		"--disk-cache-dir=" + dir.lockPath(),
	}
	if headless {
		args = append(args, "--headless=new")
	}
	return append(append(args, more...), "about:blank")
}

// startBrowser starts a browser on dir. Its page is blank.
func startBrowser(dir *browserDir, headless bool, more []string) (*browser, error) {
	path, err := findBrowser()
	if err != nil {
		return nil, err
	}
	// What the browser reads and writes, and our ends of it.
	itsIn, toIt, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	fromIt, itsOut, err := os.Pipe()
	if err != nil {
		_, _ = itsIn.Close(), toIt.Close()
		return nil, err
	}
	b := &browser{name: filepath.Base(path), ended: make(chan struct{})}
	b.cmd = exec.Command(path, browserArgs(dir, headless, more)...)
	// What it says is not shown and not kept: addresses of pages are in it.
	b.cmd.Env, b.cmd.Dir = childEnv(), dir.path
	if err = prepareBrowser(b.cmd, itsIn, itsOut, dir.lock); err == nil {
		err = b.cmd.Start()
	}
	_, _ = itsIn.Close(), itsOut.Close()
	if err != nil {
		_, _ = toIt.Close(), fromIt.Close()
		return nil, noBrowser("%s can't be started: %v", b.name, err)
	}
	b.free = holdBrowser(b.cmd.Process)
	b.tools = newDevtools(toIt, fromIt)
	go func() {
		defer close(b.ended)
		_ = b.cmd.Wait()
	}()
	return b, nil
}

// end closes the browser in order, so that its cookies are on disk, and kills
// it with all that it started if that takes longer than grace. Nothing of it
// is left afterwards.
func (b *browser) end(grace time.Duration) {
	b.tools.send("", "Browser.close", nil)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	drain := b.tools.messages
wait:
	for {
		select {
		case <-b.ended:
			break wait
		case <-timer.C:
			break wait
		case _, ok := <-drain:
			if !ok {
				drain = nil
			}
		}
	}
	killBrowser(b.cmd.Process, b.ended)
	b.free()
	b.tools.close()
}

// failure says why the browser is gone: the person closed it, it could not
// start, or it died. driven is whether it has ever had a page.
func (b *browser) failure(ctx context.Context, driven bool) error {
	select {
	case <-b.ended:
	case <-time.After(closeGrace): // it closed the pipe and hangs
		return fmt.Errorf("%s does not answer", b.name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	code := b.cmd.ProcessState.ExitCode()
	switch {
	case driven && code == 0:
		return errRefused
	case driven:
		return fmt.Errorf("%s ended by itself (%s)", b.name, b.cmd.ProcessState)
	case code != 0 && os.Geteuid() == 0 && !slices.Contains(b.cmd.Args, "--no-sandbox"):
		return noBrowser("%s does not start (%s): for root it needs browser.args = [\"--no-sandbox\"]", b.name, b.cmd.ProcessState)
	}
	return noBrowser("%s does not start (%s)", b.name, b.cmd.ProcessState)
}

// onPath is the first of the names that is a program.
func onPath(names ...string) (string, error) {
	snap := false
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		// A snap sees no hidden directory of its user, where the profile is.
		if real, err := filepath.EvalSymlinks(path); strings.HasPrefix(path, "/snap/") || err == nil && real == "/usr/bin/snap" {
			snap = true
			continue
		}
		return path, nil
	}
	if snap {
		return "", noBrowser("the browser is a snap, which can't use keyfob's directory: %s from a package", howToGetOne)
	}
	return "", noBrowser("there is no browser that can be driven: %s", howToGetOne)
}

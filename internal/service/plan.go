package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"keyfob/internal/atomicfile"
)

// Plan is what will be done, in order. Its String is for people.
type Plan struct {
	Steps []Step
	// Notes are facts that the person should know, such as a user's service
	// that ends at logout.
	Notes []string

	undo []Step // at a failure, after the undoing of the steps
}

// Step is a file to write or remove, or a command to run.
type Step struct {
	Write   string      // path of a file, with Content and Mode
	Content string      //
	Mode    fs.FileMode //
	Remove  string      // path of a file, or of a directory if it is empty
	Run     []string    // a command
	Do      string      // what do does, in words

	do       func(context.Context) error
	undo     func(context.Context)             // of do, also after its failure
	explain  func(out string, err error) error // of a failed command
	back     [][]string                        // commands that undo Run, also after its failure
	optional bool                              // a failure is no failure
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// String is one line a step: "write /path (N bytes)", "remove /path", "run
// command", and one a note.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String() + "\n")
	}
	for _, n := range p.Notes {
		b.WriteString("note: " + n + "\n")
	}
	return b.String()
}

// String is the step in one line.
func (s Step) String() string {
	switch {
	case s.Write != "":
		return fmt.Sprintf("write %s (%d bytes)", s.Write, len(s.Content))
	case s.Remove != "":
		return "remove " + s.Remove
	case len(s.Run) > 0:
		return "run " + strings.Join(s.Run, " ")
	}
	return s.Do
}

// run does the steps; when one fails those before are undone, last first.
func (p Plan) run(ctx context.Context) error {
	var undo []func()
	for _, s := range p.Steps {
		back, err := s.perform(ctx)
		if err != nil && !s.optional {
			// What undoes has to run also when the caller has gone.
			if back != nil {
				back()
			}
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
			for _, u := range p.undo {
				_, _ = u.perform(context.WithoutCancel(ctx))
			}
			return err
		}
		if back != nil {
			undo = append(undo, back)
		}
	}
	return nil
}

// runAll does all steps, whatever fails, and returns the first failure.
func (p Plan) runAll(ctx context.Context) error {
	var first error
	for _, s := range p.Steps {
		if _, err := s.perform(ctx); err != nil && !s.optional && first == nil {
			first = err
		}
	}
	return first
}

// perform does the step, and returns what undoes it, nil for nothing.
func (s Step) perform(ctx context.Context) (undo func(), err error) {
	switch {
	case s.Write != "":
		old, readErr := os.ReadFile(s.Write)
		st, _ := os.Stat(s.Write)
		made, err := makeDirs(filepath.Dir(s.Write))
		if err == nil {
			err = atomicfile.Write(s.Write, []byte(s.Content), atomicfile.Options{Mode: s.Mode})
		}
		undo := func() {
			if readErr == nil && st != nil {
				_ = atomicfile.Write(s.Write, old, atomicfile.Options{Mode: st.Mode().Perm()})
				return
			}
			_ = os.Remove(s.Write)
			for _, dir := range made {
				_ = os.Remove(dir)
			}
		}
		if err != nil {
			if readErr != nil {
				undo()
			}
			return nil, fileError("write", s.Write, err)
		}
		return undo, nil
	case s.Remove != "":
		err := os.Remove(s.Remove)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) {
			err = nil
		}
		if err != nil {
			return nil, fileError("remove", s.Remove, err)
		}
		return nil, nil
	case len(s.Run) > 0:
		undo := func() {
			for _, argv := range s.back {
				_, _ = command(context.WithoutCancel(ctx), argv...)
			}
		}
		out, err := command(ctx, s.Run...)
		if err != nil {
			if s.explain != nil {
				return undo, s.explain(out, err)
			}
			return undo, commandError(s.Run, out, err)
		}
		return undo, nil
	}
	if s.undo != nil {
		undo = func() { s.undo(context.WithoutCancel(ctx)) }
	}
	return undo, s.do(ctx)
}

// fileError says what keeps a file from being written.
func fileError(verb, path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	help := ""
	switch {
	case errors.Is(err, syscall.EROFS):
		help = "the file system is read-only: install a package, or a user's own service without --system"
	case errors.Is(err, fs.ErrPermission):
		help = "run it as the owner of that directory; for the system service with sudo"
	case errors.Is(err, syscall.ENOSPC):
		help = "make room on that file system"
	}
	return fail(help, "cannot %s %s: %w", verb, path, err)
}

// makeDirs makes a directory and returns what it made, deepest first.
func makeDirs(dir string) (made []string, err error) {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err == nil && !st.IsDir() {
			return nil, &fs.PathError{Op: "mkdir", Path: d, Err: syscall.ENOTDIR}
		}
		if err == nil || d == filepath.Dir(d) {
			break
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return made, err
		}
		made = append([]string{missing[i]}, made...)
	}
	return made, nil
}

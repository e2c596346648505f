package cli

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keyfob/internal/setup"
)

// undone is one change of `keyfob configure undo --json`.
type undone struct {
	ID    int      `json:"id"`
	Time  string   `json:"time"`
	Title string   `json:"title"`
	State string   `json:"state"`
	Files []string `json:"files"`
}

func undoneOf(e *setup.Entry) undone {
	u := undone{ID: e.ID, Time: e.Time.UTC().Format(time.RFC3339), Title: e.Title, State: e.State, Files: []string{}}
	for _, f := range e.Files {
		u.Files = append(u.Files, f.Path)
	}
	return u
}

// configureUndo is `keyfob configure undo`: the newest change that was not
// undone.
func (a *app) configureUndo(invocation) int {
	const what = "undo"
	s, err := a.settings()
	if err != nil {
		return a.fail(what, err)
	}
	j := setup.Journal{Dir: filepath.Join(s.DataDir, "configure")}
	if a.opts.configure.list {
		return a.undoList(j)
	}
	if a.opts.configure.forget {
		if err := a.confirm("Leave the files as they are, and forget how to undo the newest change?", "cannot forget a change", "keyfob configure undo --forget --yes"); err != nil {
			return a.fail(what, err)
		}
		e, err := j.Forget()
		if err != nil {
			return a.fail(what, nothing(err))
		}
		return a.undid(undoneOf(e), "forgot "+strconv.Itoa(e.ID)+" ("+e.Title+"): its files stay as they are\n")
	}
	u, err := j.Last()
	var byHand *setup.ByHand
	if errors.As(err, &byHand) {
		for _, step := range byHand.Steps {
			a.say("keyfob: by hand: " + step)
		}
		return a.fail(what, failure(byHand.Error(), "do that by hand, then keyfob configure undo --forget"))
	}
	if err != nil {
		return a.fail(what, nothing(err))
	}
	if !a.opts.yes && !a.canAsk() {
		return a.fail(what, usage("cannot undo: nobody can be asked", "keyfob configure undo --yes"))
	}
	if !a.opts.yes {
		a.write(u.Change.Diff())
		ok, err := askYes("Take back "+strconv.Quote(oneLine(u.Entry.Title))+", of "+localTime(u.Entry.Time.Format(time.RFC3339))+"?", true)
		if err != nil {
			return a.fail(what, err)
		}
		if !ok {
			return a.fail(what, failure("cannot undo: you said no", ""))
		}
	}
	if err := j.Run(u); err != nil {
		return a.fail(what, err)
	}
	if strings.HasPrefix(u.Entry.Title, "import") {
		a.notice("the keys stay in the vault: keyfob remove P takes them out")
	}
	return a.undid(undoneOf(u.Entry), "undid "+strconv.Itoa(u.Entry.ID)+" ("+oneLine(u.Entry.Title)+")\n")
}

func (a *app) undid(u undone, text string) int {
	if a.opts.json {
		return a.printJSON(u)
	}
	return a.print(text)
}

// nothing gives "there is nothing to undo" its words.
func nothing(err error) error {
	if errors.Is(err, setup.ErrNothing) {
		return failure("cannot undo: keyfob configure has changed nothing that was not undone", "")
	}
	return err
}

func (a *app) undoList(j setup.Journal) int {
	all, err := j.Entries()
	if err != nil {
		return a.fail("list the changes", err)
	}
	out := []undone{}
	for i := len(all) - 1; i >= 0; i-- { // the next to be undone first
		out = append(out, undoneOf(all[i]))
	}
	if a.opts.json {
		return a.printJSON(struct {
			Changes []undone `json:"changes"`
		}{out})
	}
	if len(out) == 0 {
		a.notice("keyfob configure has changed nothing")
		return exitDone
	}
	var b strings.Builder
	for _, u := range out {
		b.WriteString(oneLine(strconv.Itoa(u.ID)+"  "+u.State+"  "+localTime(u.Time)+"  "+u.Title) + "\n")
		for _, f := range u.Files {
			b.WriteString("   " + oneLine(f) + "\n")
		}
	}
	return a.print(b.String())
}

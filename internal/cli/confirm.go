package cli

import "errors"

// confirm asks before something is destroyed, and returns nil for a yes. Where
// nobody can be asked it refuses, with line as what does it unasked. cannot
// begins the refusal: "cannot remove the keys of x".
func (a *app) confirm(question, cannot, line string) error {
	if a.opts.yes {
		return nil
	}
	if _, err := a.settings(); err != nil {
		return err
	}
	yes, err := false, errNoTerminal
	if a.canAsk() {
		yes, err = askYes(oneLine(question), false)
	}
	switch {
	case errors.Is(err, errNoTerminal):
		return usage(cannot+": nobody can be asked", line)
	case err != nil:
		return err
	case !yes:
		return failure(cannot+": you said no", "")
	}
	return nil
}

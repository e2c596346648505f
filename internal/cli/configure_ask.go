package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// oneOf checks for one of some words.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return errors.New("it is one of " + strings.Join(words, ", "))
		}
		return nil
	}
}

// canAsk reports whether a person can be asked question after question.
func (a *app) canAsk() bool {
	s, err := a.settings()
	return err == nil && s.Interactive != "never" && a.stdinIsTerminal() && hasTerminal()
}

// askLine asks on the terminal until the answer passes check; an empty one
// is def. It gives up after some that do not pass.
func askLine(text, def string, check func(string) error) (string, error) {
	prompt := text
	if def != "" {
		prompt += " [" + oneLine(def) + "]"
	}
	prompt += ": "
	why := ""
	for range maxTries {
		line, err := askTerminal(context.Background(), why+prompt, true)
		if err != nil {
			return "", err
		}
		if line = strings.TrimSpace(line); line == "" {
			line = def
		}
		if err := check(line); err != nil {
			why = oneLine("  that can't be: "+err.Error()) + "\n"
			continue
		}
		return line, nil
	}
	return "", failure("cannot go on: no answer could be used", "")
}

// askYes asks a question that Enter answers with def.
func askYes(text string, def bool) (bool, error) {
	choices := " [y/N] "
	if def {
		choices = " [Y/n] "
	}
	why := ""
	for range maxTries {
		line, err := askTerminal(context.Background(), why+text+choices, true)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "":
			return def, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		why = "  y or n, please\n"
	}
	return false, nil
}

// askOne has the person choose one row of a numbered list; def is a row's
// index, -1 for none.
func askOne(text string, rows [][]string, def int) (int, error) {
	if len(rows) == 0 {
		return 0, failure("cannot ask: there is nothing to choose from", "")
	}
	prompt := fmt.Sprintf("%s (1 to %d)", text, len(rows))
	preset := ""
	if def >= 0 {
		preset = strconv.Itoa(def + 1)
	}
	chosen := 0
	_, err := askLine(numbered(rows, nil)+prompt, preset, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > len(rows) {
			return fmt.Errorf("it is a number from 1 to %d", len(rows))
		}
		chosen = n - 1
		return nil
	})
	return chosen, err
}

// askMany has the person choose rows of a numbered list: by numbers and
// ranges, or all; any other text narrows the list to the rows that have it.
func askMany(rows [][]string) ([]int, error) {
	shown := make([]int, len(rows))
	for i := range rows {
		shown[i] = i
	}
	say := ""
	for range 20 * maxTries {
		question := say + numbered(rows, shown) + "Which? Numbers and ranges (1,3-5), all, or a text to look for: "
		say = ""
		line, err := askTerminal(context.Background(), question, true)
		if err != nil {
			return nil, err
		}
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			return nil, failure("cannot go on: none was chosen", "")
		case strings.EqualFold(line, "all"):
			return shown, nil
		}
		picked, err := ranges(line, len(rows))
		if err == nil {
			return picked, nil
		}
		if !errors.Is(err, errNoRange) {
			say = "  that can't be: " + err.Error() + "\n"
			continue
		}
		var found []int
		for i, row := range rows {
			if strings.Contains(strings.ToLower(strings.Join(row, " ")), strings.ToLower(line)) {
				found = append(found, i)
			}
		}
		if len(found) == 0 {
			say = oneLine("  nothing has "+strconv.Quote(line)+" in it") + "\n"
			continue
		}
		shown = found
	}
	return nil, failure("cannot go on: none was chosen", "")
}

var errNoRange = errors.New("it is no list of numbers")

// ranges reads "1,3-5" into indices below n, in order and each once.
func ranges(text string, n int) ([]int, error) {
	var out []int
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		from, to, two := strings.Cut(part, "-")
		if !two {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil {
			return nil, errNoRange
		}
		if a < 1 || b < a || b > n {
			return nil, fmt.Errorf("%s is not within 1 to %d", part, n)
		}
		for i := a; i <= b; i++ {
			if !slices.Contains(out, i-1) {
				out = append(out, i-1)
			}
		}
	}
	if len(out) == 0 {
		return nil, errNoRange
	}
	slices.Sort(out)
	return out, nil
}

// numbered lays out rows (those of only, nil for all) with their numbers
// from 1; every cell is made harmless.
func numbered(rows [][]string, only []int) string {
	if only == nil {
		for i := range rows {
			only = append(only, i)
		}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 2, 4, 2, ' ', 0)
	for _, i := range only {
		fmt.Fprintf(w, "%4d", i+1)
		for _, cell := range rows[i] {
			fmt.Fprintf(w, "\t%s", oneLine(cell))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return out.String()
}

package cli

import "errors"

// errNoTerminal: there is no terminal on which a person could be asked.
var errNoTerminal = errors.New("there is no terminal to ask on")

// errInputEnded: the terminal hung up, or Ctrl-D was typed, and nothing else.
// It is no answer: least of all the one that Enter gives.
var errInputEnded = failure("cannot go on: the terminal's input ended", "")

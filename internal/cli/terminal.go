package cli

import "errors"

// errNoTerminal: there is no terminal on which a person could be asked.
var errNoTerminal = errors.New("there is no terminal to ask on")

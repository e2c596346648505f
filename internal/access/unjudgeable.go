package access

// Unjudgeable returns the rules that can't be judged where they stand, each
// as one line.
func (cfg RulesConfig) Unjudgeable() []string { return nil }

package profiles

// Error says what is wrong, with FILE:LINE of each setting it is about.
func (e *Error) Error() string { return e.Message }

// Hint says what a person can do, "" for nothing better than the message.
func (e *Error) Hint() string { return e.Help }

package cli

import (
	"context"

	"keyfob/internal/control"
)

// answer is `keyfob answer`: it has the daemon put a question that waits.
func (a *app) answer(in invocation) int {
	const what = "answer the question"
	var p control.AnswerParams
	if len(in.args) > 0 {
		p.Interaction = in.args[0]
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.signInWait())
	defer cancel()
	if err := a.call(ctx, control.MethodAnswer, p, nil, a.handler("answer")); err != nil {
		return a.fail(what, err)
	}
	return a.done("answered", struct{}{})
}

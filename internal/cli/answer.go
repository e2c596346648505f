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
	if err := a.canAnswer(ctx, p.Interaction); err != nil {
		return a.fail(what, err)
	}
	if err := a.call(ctx, control.MethodAnswer, p, nil, a.handler("answer")); err != nil {
		return a.fail(what, err)
	}
	return a.done("answered", struct{}{})
}

// canAnswer returns why nobody here could answer. A question that is taken up
// and not answered counts as refused, and whoever waits for it would have to
// wait longer: so it is not taken up in vain.
func (a *app) canAnswer(ctx context.Context, id string) error {
	if hasTerminal() || a.graphical() {
		return nil
	}
	var st control.StatusResult
	if err := a.call(ctx, control.MethodStatus, control.Empty{}, &st, nil); err != nil {
		return err
	}
	for _, i := range st.Interactions {
		if id != "" && i.ID != id {
			continue
		}
		switch i.Kind {
		case control.PromptConfirm, control.PromptMFA, control.PromptCode, control.PromptChoice:
			return person("cannot answer for "+i.Profile+": it is answered at a terminal, and there is none", "keyfob answer "+i.ID+" in a terminal")
		}
		break // "" is the oldest, which stands first
	}
	return nil
}

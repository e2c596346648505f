package cli

import (
	"encoding/json"
	"strings"

	"keyfob/internal/control"
)

// whoami is `keyfob whoami`.
func (a *app) whoami(in invocation) int {
	const what = "tell who that is"
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(awsWait, c.MayAsk)
	defer cancel()
	var raw json.RawMessage
	var r control.WhoamiResult
	err = a.call(ctx, control.MethodWhoami, control.ProfileParams{Context: c}, &raw, a.handler("whoami"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return a.fail(what, err)
	}
	if a.opts.json {
		return a.printJSON(raw)
	}
	account := r.AccountID
	if r.Alias != "" {
		account += " (" + r.Alias + ")"
	}
	rows := [][]string{{"profile", r.Profile}, {"arn", r.ARN}, {"account", account}, {"user id", r.UserID}, {"source", r.Source}}
	if r.Region != "" {
		rows = append(rows, []string{"region", r.Region})
	}
	if r.Expiration != "" {
		rows = append(rows, []string{"until", localTime(r.Expiration)})
	}
	code := a.print(table(rows))
	for _, w := range r.Warnings {
		a.notice("warning: " + strings.TrimSpace(w))
	}
	return code
}

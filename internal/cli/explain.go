package cli

import (
	"encoding/json"
	"strings"

	"keyfob/internal/control"
	"keyfob/profiles"
)

// explain is `keyfob explain`: of a profile that does not work it shows as
// much as there is, and fails.
func (a *app) explain(in invocation) int {
	const what = "explain the profile"
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var raw json.RawMessage
	var x profiles.Explanation
	err = a.call(ctx, control.MethodExplain, control.ProfileParams{Context: c}, &raw, a.handler("explain"))
	if err == nil {
		err = json.Unmarshal(raw, &x)
	}
	if err != nil {
		return a.fail(what, err)
	}
	code := exitDone
	if a.opts.json {
		code = a.printJSON(raw)
	} else {
		var b strings.Builder
		shown := x
		shown.Error = nil // it goes to standard error
		shown.Text(&b)
		code = a.print(b.String())
	}
	if x.Error != nil {
		return a.fail(what, failure(x.Error.Message, x.Error.Hint))
	}
	return code
}

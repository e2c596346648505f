package cli

import (
	"context"
	"encoding/json"
	"flag"
	"strings"
	"time"

	"keyfob/internal/control"
)

// rotateWait is for a rotation: IAM takes its time until a new key is known
// everywhere, and there may be many.
const rotateWait = 15 * time.Minute

func rotateFlags(o *options, fs *flag.FlagSet) {
	fs.Var(&o.due, "due", "rotate the keys that are `older` than that, such as 90d; without P all of the vault's")
}

// rotate is `keyfob rotate`.
func (a *app) rotate(in invocation) int {
	const what = "rotate the keys"
	p := control.RotateParams{Due: int64(time.Duration(a.opts.due) / time.Second)}
	name, err := a.named(in)
	if err != nil {
		return a.fail(what, err)
	}
	switch {
	case name != "":
		p.Context, err = a.context(in)
	case p.Due > 0:
		p.All, p.Context = true, a.environment().Context
		old := roughly(time.Duration(p.Due) * time.Second)
		err = a.confirm("Replace every key of the vault that is older than "+old+", and delete the old ones in AWS?", "cannot rotate the keys", "keyfob rotate --due "+a.opts.due.String()+" --yes")
	default:
		err = usage("cannot rotate without a profile", "keyfob rotate P, or keyfob rotate --due 90d")
	}
	if err != nil {
		return a.fail(what, err)
	}
	if s, err := a.settings(); err == nil {
		p.MayAsk = a.mayAsk(s.Interactive)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rotateWait)
	defer cancel()
	var raw json.RawMessage
	var r control.RotateResult
	err = a.call(ctx, control.MethodRotate, p, &raw, a.handler("rotate"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return a.fail(what, err)
	}
	code := exitDone
	if a.opts.json {
		code = a.printJSON(raw)
	} else {
		code = a.print(rotatedText(r.Keys, a.lookOf(a.Stdout)))
	}
	for _, k := range r.Keys {
		for _, w := range k.Warnings {
			a.notice(k.Profile + ": warning: " + w)
		}
		if k.Error != "" {
			message := k.Error
			if !strings.HasPrefix(message, "cannot ") || !strings.Contains(message, k.Profile) {
				message = "cannot rotate the key of " + k.Profile + ": " + message
			}
			code = max(code, a.fail(what, failure(message, k.Hint)))
		}
	}
	if len(r.Keys) == 0 {
		a.notice("no key is that old")
	}
	return code
}

func rotatedText(keys []control.RotatedKey, l look) string {
	if len(keys) == 0 {
		return ""
	}
	g := grid{head: []string{"PROFILE", "USER", "OLD KEY", "NEW KEY", "RESULT"}, whole: []int{2, 3}}
	for _, k := range keys {
		row := plain(k.Profile, k.User, k.Old, k.New, "rotated")
		row[0].colour, row[4].colour = bold, green
		switch {
		case k.Error != "":
			row[4] = cell{"failed", red}
		case k.Skipped != "":
			row[4] = cell{"left alone: " + k.Skipped, dim}
		case k.Resumed:
			row[4].text = "an earlier rotation was finished"
		}
		if len(k.Also) > 0 {
			row[4].text += " (also for " + strings.Join(k.Also, ", ") + ")"
		}
		g.rows = append(g.rows, row)
	}
	return g.text(l)
}

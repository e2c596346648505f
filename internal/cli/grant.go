package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/profiles"
)

// grantAdd is `keyfob grant add`.
func (a *app) grantAdd(in invocation) int {
	const what = "make the grant"
	names, err := a.mustName(in)
	if err != nil {
		return a.fail(what, err)
	}
	var profiles []string
	for _, name := range strings.Split(names, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return a.fail(what, usage(fmt.Sprintf("cannot make a grant for %q: a name is empty", names), ""))
		}
		profiles = append(profiles, name)
	}
	in.args, a.flags.Profile = profiles[:1], ""
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	p := control.GrantParams{
		Context:  c,
		Profiles: profiles,
		Expires:  int64(time.Duration(a.opts.expires) / time.Second),
		Note:     a.opts.note,
		AnyUser:  a.opts.anyUser,
		Relative: a.opts.relative,
	}
	p.TokenFile = a.absolute(a.opts.tokenFile)
	if p.SessionPolicy, err = a.sessionPolicy(); err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(awsWait, c.MayAsk)
	defer cancel()
	var g control.GrantResult
	if err := a.call(ctx, control.MethodGrantAdd, p, &g, a.handler("grant")); err != nil {
		return a.fail(what, err)
	}
	if _, err := a.keepToken(&g, p.TokenFile); err != nil {
		_ = a.revoke(g.ID)
		return a.fail(what, err)
	}
	if a.opts.json {
		return a.printJSON(struct {
			ID          string   `json:"id"`
			Profiles    []string `json:"profiles"`
			URL         string   `json:"url"`
			RelativeURI string   `json:"relative_uri,omitempty"`
			TokenFile   string   `json:"token_file"`
			Expires     string   `json:"expires"`
		}{g.ID, g.Profiles, g.URL, g.RelativeURI, g.TokenFile, g.Expires})
	}
	if g.RelativeURI != "" {
		return a.print("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=" + g.RelativeURI + "\n")
	}
	return a.print("AWS_CONTAINER_CREDENTIALS_FULL_URI=" + g.URL + "\nAWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + g.TokenFile + "\n")
}

// keepToken writes a grant's token where the daemon, being another user's,
// can't: to path, or to a file in our own data directory. forget removes it.
func (a *app) keepToken(g *control.GrantResult, path string) (forget func(), err error) {
	if g.Token == "" {
		return func() {}, nil
	}
	if path == "" {
		if path, err = a.tokenPath(g.ID); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("cannot keep the grant's token: %w", err)
		}
	}
	old, err := os.ReadFile(path)
	missing := errors.Is(err, os.ErrNotExist)
	if missing {
		err = nil
	}
	if err == nil && len(old) > 0 && len(old) != len(g.Token) {
		err = errors.New("it holds something else than a token")
	}
	if err == nil && !missing {
		err = os.Chmod(path, 0o600) // which the new one gets as well
	}
	if err == nil {
		err = profiles.ReplaceFile(path, old, missing, []byte(g.Token))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot keep the grant's token in %s: %w", path, err)
	}
	g.TokenFile, g.Token = path, ""
	return func() { _ = os.Remove(path) }, nil
}

// tokenPath is where keepToken writes the token of the grant id.
func (a *app) tokenPath(id string) (string, error) {
	s, err := a.settings()
	if err != nil {
		return "", err
	}
	return filepath.Join(s.DataDir, "grants", filepath.Base(id)+".token"), nil
}

// grantList is `keyfob grant list`.
func (a *app) grantList(invocation) int {
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var r control.GrantListResult
	if err := a.call(ctx, control.MethodGrantList, control.Empty{}, &r, a.handler("grant")); err != nil {
		return a.fail("list the grants", err)
	}
	if a.opts.json {
		if r.Grants == nil {
			r.Grants = []control.GrantResult{}
		}
		return a.printJSON(r)
	}
	if len(r.Grants) == 0 {
		a.notice("there are no grants")
		return exitDone
	}
	shown := grid{head: []string{"ID", "PROFILES", "EXPIRES", "URL", "NOTE"}, whole: []int{0, 2, 3}}
	for _, g := range r.Grants {
		expires := "never"
		if g.Expires != "" {
			expires = localTime(g.Expires)
		}
		url := g.URL
		if g.RelativeURI != "" {
			url = g.RelativeURI
		}
		row := plain(g.ID, strings.Join(g.Profiles, ","), expires, url, g.Note)
		row[1].colour = bold
		shown.rows = append(shown.rows, row)
	}
	return a.print(shown.text(a.lookOf(a.Stdout)))
}

// grantRemove is `keyfob grant remove`. With --json it says which are
// revoked, also when one of them could not be.
func (a *app) grantRemove(in invocation) int {
	removed := struct {
		Revoked []string `json:"revoked"`
	}{[]string{}}
	code := exitDone
	for _, id := range in.args {
		what := "revoke the grant " + id
		ctx, cancel := a.within(quickWait, false)
		err := a.call(ctx, control.MethodGrantRemove, control.GrantRemoveParams{ID: id}, nil, a.handler("grant"))
		cancel()
		if err != nil {
			code = a.fail(what, err)
			break
		}
		removed.Revoked = append(removed.Revoked, id)
		if path, err := a.tokenPath(id); err == nil {
			_ = os.Remove(path) // of keepToken; a daemon of our own has removed its file
		}
		if !a.opts.json {
			if code = a.print(oneLine("revoked "+id) + "\n"); code != exitDone {
				break
			}
		}
	}
	if a.opts.json {
		if printed := a.printJSON(removed); code == exitDone {
			code = printed
		}
	}
	return code
}

// revoke removes the grant of exec. It starts no daemon for it: one that
// starts later finds the program gone and revokes the grant itself.
func (a *app) revoke(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a.hangUp() // what is left of the first connection may have been closed for idleness
	client, err := a.dial(ctx)
	if err != nil {
		return err
	}
	err = client.Call(ctx, control.MethodGrantRemove, control.GrantRemoveParams{ID: id}, nil, nil)
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeNotFound {
		return nil // a logout under the program revoked it
	}
	return err
}

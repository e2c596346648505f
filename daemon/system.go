package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/interact"
	"keyfob/internal/peer"
	"keyfob/internal/source/command"
	"keyfob/profiles"
)

// system reports whether this daemon serves a machine rather than a person.
func (d *daemon) system() bool { return d.conf().System }

// mayAnswer reports whether the caller may see and answer a question: one
// about a profile that the rules give him, and whether a program may have it
// only where the program is his.
func (d *daemon) mayAnswer(c *call, p *interact.Pending) bool {
	if c.admin {
		return true
	}
	if !d.mayHaveProfile(c, p.Profile) {
		return false
	}
	if p.Kind != cred.AskConfirm {
		return true
	}
	who, ok := d.confirming.caller(p.Key)
	return ok && who.UID == c.caller.Caller.UID
}

// confirming remembers whose program each question of the kind "confirm" is
// about.
type confirming struct {
	mu sync.Mutex // guards by
	by map[string]map[cred.LinkKey]peer.Caller
}

// manyConfirming bounds what is remembered of one user.
const manyConfirming = 64

// note remembers whose program a question is about. Where there are too many
// those go that do not wait for an answer.
func (x *confirming) note(key cred.LinkKey, who peer.Caller, waits func(cred.LinkKey) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.by == nil {
		x.by = map[string]map[cred.LinkKey]peer.Caller{}
	}
	mine := x.by[who.UID]
	if mine == nil {
		mine = map[cred.LinkKey]peer.Caller{}
		x.by[who.UID] = mine
	}
	if len(mine) >= manyConfirming {
		maps.DeleteFunc(mine, func(k cred.LinkKey, _ peer.Caller) bool { return !waits(k) })
	}
	mine[key] = who
}

func (x *confirming) caller(key cred.LinkKey) (peer.Caller, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, mine := range x.by {
		if who, ok := mine[key]; ok {
			return who, true
		}
	}
	return peer.Caller{}, false
}

// variety bounds how many different session policies one user may ask for:
// each becomes a session of its own, kept fresh and written to the vault.
type variety struct {
	mu   sync.Mutex // guards seen
	seen map[string]map[[sha256.Size]byte]time.Time
}

const (
	manyPolicies    = 32
	policyForgotten = time.Hour
)

// allow reports whether the user may ask for the policy.
func (v *variety) allow(uid string, p control.SessionPolicy) bool {
	if p.Policy == "" && len(p.PolicyARNs) == 0 {
		return true
	}
	key := sha256.Sum256([]byte(p.Policy + "\x00" + strings.Join(p.PolicyARNs, "\x00")))
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen == nil {
		v.seen = map[string]map[[sha256.Size]byte]time.Time{}
	}
	mine := v.seen[uid]
	maps.DeleteFunc(mine, func(_ [sha256.Size]byte, last time.Time) bool { return now.Sub(last) > policyForgotten })
	if _, known := mine[key]; !known && len(mine) >= manyPolicies {
		return false
	}
	if mine == nil {
		mine = map[[sha256.Size]byte]time.Time{}
		v.seen[uid] = mine
	}
	mine[key] = now
	return true
}

// upstream bounds how often one user may have AWS asked for him. What is
// handed out from memory does not count.
type upstream struct {
	mu   sync.Mutex // guards what follows
	from time.Time
	uses map[string]int
}

const manyUpstream = 120 // a minute

// upstreamMethods ask AWS, or open something, with each call.
var upstreamMethods = map[string]bool{control.MethodWhoami: true, control.MethodConsole: true, control.MethodPolicy: true, control.MethodLogin: true}

func (u *upstream) allow(uid string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); u.uses == nil || now.Sub(u.from) >= time.Minute {
		u.from, u.uses = now, map[string]int{}
	}
	u.uses[uid]++
	return u.uses[uid] <= manyUpstream
}

// manyQuestions is how many questions about one user's programs may wait for
// a person: there is room for so many of all users together, and a program is
// easily made.
const manyQuestions = 16

// mayQuestion reports whether a question about a program may be put, or wait.
func (d *daemon) mayQuestion(key cred.LinkKey) bool {
	if !d.system() {
		return true
	}
	who, ok := d.confirming.caller(key)
	if !ok {
		return false
	}
	mine := 0
	for _, p := range d.queue.Pending() {
		if p.Key == key {
			return true
		}
		if p.Kind != cred.AskConfirm {
			continue
		}
		if other, ok := d.confirming.caller(p.Key); ok && other.UID == who.UID {
			mine++
		}
	}
	return mine < manyQuestions
}

// mayRun refuses what a machine's daemon does only where its administrator
// allows it: programs, and sign-ins of a person.
func (c *config) mayRun(link profiles.Link) error {
	if !c.System {
		return nil
	}
	refuse := func(what, setting, how string) error {
		return cred.WithHint(fmt.Errorf("cannot use the %s of profile %s: the daemon of a machine %s: %w", what, link.Profile, how, cred.ErrConfig),
			setting+" = true under [system] in "+c.ConfigFile+" allows it")
	}
	const noPrograms, noSignIns = "runs no programs", "takes no person's sign-in"
	program := link.Kind == profiles.KindProcess || link.Kind == profiles.KindSAML && link.Params["saml_process"] != ""
	switch {
	case program && !c.Machine.AllowProcesses:
		what := "credential_process"
		if link.Kind == profiles.KindSAML {
			what = "saml_process"
		}
		return refuse(what, "allow_processes", noPrograms)
	case program:
		return nil
	}
	switch link.Kind {
	case profiles.KindSSO, profiles.KindOIDC, profiles.KindLogin, profiles.KindSAML:
		if !c.Machine.AllowSignIns {
			return refuse(string(link.Kind)+" sign-in", "allow_sign_ins", noSignIns)
		}
	}
	return nil
}

// errNoPrograms is mayRun's answer to mfa_process and ykman.
func (d *daemon) mayRunProgram(p command.Program) error {
	c := d.conf()
	if !c.System || c.Machine.AllowProcesses {
		return nil
	}
	return cred.WithHint(fmt.Errorf("cannot run %s: the daemon of a machine runs no programs", p.Name), "allow_processes = true under [system] in "+c.ConfigFile+" allows it")
}

// checkFiles refuses files for a machine's daemon that its users could have
// written: whoever writes them decides who gets what.
func (c *config) checkFiles(paths ...string) error {
	if !c.System {
		return nil
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		if err := writableByOthers(path); err != nil {
			return cred.WithHint(fmt.Errorf("cannot use %s for the daemon of a machine: %w", path, err), safeFiles)
		}
	}
	return nil
}

// files are those of the settings that decide who gets what, beside those
// that reading tells of.
func (c *config) files() []string {
	return []string{c.ConfigFile, c.ProfilesFile, c.AWSConfigFile, c.AWSCredentials, c.PassphraseFile}
}

// ownGrant refuses what a user of a machine's daemon may not have as a grant.
func (d *daemon) ownGrant(c *call, p *control.GrantParams, names []string) error {
	if c.admin {
		return nil
	}
	deny := func(profile, reason string) error {
		err := &access.Denied{Reason: reason}
		r := c.caller
		r.Profile, r.Via = profile, cred.Endpoint{Kind: cred.ViaExec}
		d.refusal(r, err)
		d.refusals.log(d, r.Caller, profile, reason)
		return err
	}
	if p.AnyUser {
		return deny(names[0], "only administrators make grants for any user")
	}
	if len(names) > manyNames || len(p.Note) > longestNote {
		return &control.Error{Code: control.CodeUsage, Message: fmt.Sprintf("cannot make the grant: it may have %d profiles, and a note of %d bytes", manyNames, longestNote)}
	}
	for _, name := range names {
		if err := tooLong(name); err != nil {
			return deny(name[:longestName], reasonOf(err))
		}
		if err := d.check(c.caller.Caller, name, cred.Endpoint{Kind: cred.ViaExec}); err != nil {
			return deny(name, reasonOf(err))
		}
		if e := d.containerEndpoint(); e != nil && !p.ForExec {
			if err := d.check(c.caller.Caller, name, cred.Endpoint{Kind: e.kind, Listen: e.address()}); err != nil {
				return deny(name, reasonOf(err))
			}
		}
	}
	mine := 0
	for _, g := range d.grants.List() {
		if g.UID == c.caller.Caller.UID {
			mine++
		}
	}
	if mine >= manyGrants {
		return &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("cannot make the grant: you have %d already", mine), Hint: "keyfob grant list, keyfob grant remove"}
	}
	return nil
}

// What one user of a machine's daemon may have, so that all grants together
// are one answer to the administrators.
const (
	manyGrants  = 128
	manyNames   = 16  // of profiles, in one grant
	longestNote = 200 // bytes
)

// reasonOf is what the log is told of a refusal.
func reasonOf(err error) string {
	var denied *access.Denied
	if errors.As(err, &denied) {
		return denied.Reason
	}
	return oneText(err.Error())
}

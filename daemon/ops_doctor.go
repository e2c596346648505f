package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/ops"
	"keyfob/internal/settings"
	"keyfob/profiles"
)

// doctorLimit bounds the whole look. What has no answer by then says so.
const doctorLimit = 9 * time.Second

// openingLimit bounds the wait for a vault that is being opened.
const openingLimit = 3 * time.Second

// checkup is one look at the whole way that a request goes.
type checkup struct {
	*daemon
	c       *call
	p       control.DoctorParams
	profile string // that was named, "" for all
}

// checks is a list under construction.
type checks []control.Check

func (k *checks) add(group, id, state, format string, args ...any) *control.Check {
	*k = append(*k, control.Check{ID: id, Group: group, State: state, Message: oneText(fmt.Sprintf(format, args...))})
	return &(*k)[len(*k)-1]
}

// failed adds what an error says, with its hint.
func (k *checks) failed(group, id string, err error) *control.Check {
	x := k.add(group, id, control.CheckFailed, "%s", err.Error())
	mends(x, hintOf(err))
	var file *profiles.Error
	var setting *settings.Error
	var wire *control.Error
	switch {
	case errors.As(err, &wire):
		mends(x, wire.Hint)
	case errors.As(err, &file):
		x.File, x.Line = file.File, file.Line
	case errors.As(err, &setting):
		x.File, x.Line = setting.File, setting.Line
	}
	return x
}

// doctor looks at the daemon's part of the way: files, vault, daemon,
// endpoints, network, profile. It asks no person, and takes ten seconds at
// most. What is wrong is a check, never an error of the call.
func (d *daemon) doctor(c *call) (any, error) {
	p, err := decode[control.DoctorParams](c)
	if err != nil {
		return nil, err
	}
	x := &checkup{daemon: d, c: c, p: p}
	if p.Named || p.Profile != "" {
		x.profile = d.request(c, p.Context, "").Profile
	}
	p.Named = true // keys in the environment are the client's part
	var all checks
	if err := d.checkContext(p.Context); err != nil {
		k := all.failed("environment", "environment.same", err)
		if d.opt.OnDemand {
			k.Fix, k.Hint = "keyfob stop", "" // the next one starts with the caller's
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, doctorLimit)
	defer cancel()
	opening, stop := context.WithTimeout(ctx, openingLimit)
	_ = d.store.wait(opening) // a vault that is being opened is none that is not open
	stop()
	d.freshProfiles(ctx)
	parts := []func(context.Context) checks{x.files, x.vaultPart, x.daemonPart, x.endpointPart, x.networkPart, x.profilePart}
	found := make([]checks, len(parts))
	var wait sync.WaitGroup
	for i, part := range parts {
		wait.Go(func() { found[i] = part(ctx) })
	}
	wait.Wait()
	return control.DoctorResult{Checks: slices.Concat(append([]checks{all}, found...)...)}, nil
}

const (
	groupFiles     = "files"
	groupVault     = "vault"
	groupDaemon    = "daemon"
	groupEndpoints = "endpoints"
	groupNetwork   = "network"
	groupProfile   = "profile"
)

// keepsOld is the advice for a file whose change can't be read.
const keepsOld = "mend it; what was read before is used until then"

// manyChecks bounds what is said of one kind.
const manyChecks = 20

// files looks at the settings and the AWS files: are they there, who may read
// and write them, what can't be understood.
func (x *checkup) files(ctx context.Context) (out checks) {
	conf := x.conf()
	if _, err := os.Stat(conf.ConfigFile); err == nil {
		out.add(groupFiles, "settings", control.CheckOK, "the settings are read from %s", conf.ConfigFile).File = conf.ConfigFile
		out.loose(groupFiles, "settings.private", conf.ConfigFile, false)
	} else {
		out.add(groupFiles, "settings", control.CheckOK, "there is no %s: the defaults hold", conf.ConfigFile).File = conf.ConfigFile
	}
	x.mu.Lock()
	reload := x.reloadErr
	x.mu.Unlock()
	var ofFile *profiles.Error
	if reload != nil && !errors.As(reload, &ofFile) { // those of the AWS files are told below
		k := out.failed(groupFiles, "settings.reload", reload)
		k.Message = "the last change is not in force: " + k.Message
		if k.Hint == "" && k.Fix == "" {
			k.Hint = keepsOld
		}
	}
	set := x.readProfiles(conf, x.vaultKeys(ctx))
	for _, f := range set.Files() {
		out.awsFile(x, f)
	}
	out.plainKeys(set)
	return out
}

// awsFile tells of one of the three files that profiles stand in.
func (k *checks) awsFile(x *checkup, f profiles.FileState) {
	id := "files." + string(f.Kind)
	switch {
	case f.Path == "":
	case f.Err != nil:
		c := k.failed(groupFiles, id, f.Err)
		if c.About = f.Path; c.Fix == "" && c.Hint == "" {
			c.Hint = keepsOld
		}
	case !f.Exists:
		variable := map[profiles.OriginKind]string{profiles.FromConfig: "AWS_CONFIG_FILE", profiles.FromCredentials: "AWS_SHARED_CREDENTIALS_FILE"}[f.Kind]
		state, text := control.CheckOK, "there is no "+f.Path
		if variable != "" && x.env[variable] != "" {
			state, text = control.CheckWarning, variable+" names "+f.Path+", which does not exist"
		}
		c := k.add(groupFiles, id, state, "%s", text)
		c.File, c.About = f.Path, f.Path
		if state != control.CheckOK {
			c.Hint = "correct it or unset it, where keyfobd gets its environment, and keyfob stop"
			if x.opt.OnDemand {
				c.Fix, c.Hint = "unset "+variable+"; keyfob stop", ""
			}
		}
	default:
		c := k.add(groupFiles, id, control.CheckOK, "%s is read", f.Path)
		c.File, c.About = f.Path, f.Path
		k.loose(groupFiles, id+".private", f.Path, f.Kind == profiles.FromCredentials)
	}
}

// loose tells of a file that others may write to, or, where it is secret,
// read.
func (k *checks) loose(group, id, path string, secret bool) {
	st, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" { // access lists decide there
		return
	}
	if err := writableByOthers(path); err != nil {
		c := k.add(group, id, control.CheckFailed, "whoever may write to %s decides what your programs get: %s", path, err)
		c.File, c.About = path, path
		c.Hint = "it and the directories above it should be yours, and writable for nobody else"
		if st.Mode().Perm()&0o022 != 0 {
			c.Fix = "chmod go-w " + shellWord(path)
		}
		return
	}
	if secret && st.Mode().Perm()&0o077 != 0 {
		c := k.add(group, id, control.CheckWarning, "others on this machine may read %s (%04o)", path, st.Mode().Perm())
		c.File, c.About, c.Fix = path, path, "chmod 600 "+shellWord(path)
	}
}

// shellWord quotes a path where a shell would take it apart.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@%:=,", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// plainKeys tells of long-lived keys that stand in files.
func (k *checks) plainKeys(set *profiles.Set) {
	seen := map[string]bool{}
	for _, name := range set.Names() {
		prof, err := set.Resolve(named(name))
		if err != nil {
			continue
		}
		s, ok := prof.Get("aws_access_key_id")
		if !ok {
			continue
		}
		for _, at := range append([]profiles.Shadow{{Value: s.Value, Origin: s.Origin}}, s.Shadows...) {
			place := fmt.Sprint(at.Origin.File, ":", at.Origin.Line)
			// Keys of a session begin with ASIA: they end by themselves.
			if at.Origin.File == "" || !strings.HasPrefix(at.Value, "AKIA") || seen[place] {
				continue
			}
			seen[place] = true
			if len(seen) > manyChecks {
				continue
			}
			c := k.add(groupFiles, "files.plain-keys", control.CheckWarning, "the long-lived keys of %s stand in plain text in %s", name, place)
			c.File, c.Line, c.About, c.Fix = at.Origin.File, at.Origin.Line, name, "keyfob import"
		}
	}
	if more := len(seen) - manyChecks; more > 0 {
		k.add(groupFiles, "files.plain-keys", control.CheckWarning, "and %d more profiles have long-lived keys in plain text", more).Fix = "keyfob import"
	}
	if len(seen) == 0 {
		k.add(groupFiles, "files.plain-keys", control.CheckOK, "no long-lived keys stand in plain text")
	}
}

// vaultPart looks at the vault and what holds its key.
func (x *checkup) vaultPart(ctx context.Context) (out checks) {
	dir := x.conf().DataDir
	st, err := os.Stat(dir)
	if err == nil {
		err = checkPrivate(dir, st)
	}
	if err != nil {
		k := out.failed(groupVault, "data-dir", err)
		if k.File = dir; st != nil && runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
			k.Fix, k.Hint = "chmod 700 "+shellWord(dir), ""
		}
	} else {
		out.add(groupVault, "data-dir", control.CheckOK, "%s is private", dir).File = dir
	}
	vs := x.vault.Status()
	switch {
	case x.lockedByHand.Load():
		out.add(groupVault, "vault.unlocked", control.CheckFailed, "keyfob is locked").Fix = "keyfob unlock"
	case vs.Locked && vs.Err != nil:
		k := out.failed(groupVault, "vault.unlocked", vs.Err)
		k.Fix, k.Hint = "", ""
		if mends(k, x.vaultHint(vs.Err)); k.Fix == "" && k.Hint == "" {
			k.Fix = "keyfob unlock"
		}
	case vs.Locked && vs.New:
		out.add(groupVault, "vault.unlocked", control.CheckOK, "the vault (%s) is new and has no key yet", vs.Backend)
	case vs.Locked:
		out.add(groupVault, "vault.unlocked", control.CheckWarning, "the vault (%s) is not open yet", vs.Backend).Fix = "keyfob unlock"
	default:
		out.add(groupVault, "vault.unlocked", control.CheckOK, "the vault is open (%s)", vs.Backend)
	}
	if vs.Warning != "" {
		out.add(groupVault, "vault.backend", control.CheckWarning, "%s", vs.Warning)
	}
	bad := slices.DeleteFunc(slices.Clone(vs.Corrupt), x.replaced)
	for i, name := range bad {
		if i == manyChecks {
			out.add(groupVault, "vault.records", control.CheckWarning, "and %d more records were set aside", len(bad)-i)
			break
		}
		k := out.add(groupVault, "vault.records", control.CheckFailed, "a record of the vault could not be opened and was set aside: %s", name)
		k.About = name
		k.Hint = "keys are added anew by `keyfob add`, sessions are made anew by themselves"
	}
	if len(bad) == 0 {
		out.add(groupVault, "vault.records", control.CheckOK, "every record that was read could be opened")
	}
	if left, err := ops.Unfinished(ctx, x.vault); err == nil && len(left) > 0 {
		k := out.add(groupVault, "rotation.unfinished", control.CheckWarning, "the rotation of the keys of %s is not finished", joinedText(left))
		if k.Fix = "keyfob rotate --due 90d"; len(left) == 1 {
			k.Fix = "keyfob rotate " + shellWord(left[0])
		}
	}
	return out
}

// daemonPart tells of this process.
func (x *checkup) daemonPart(context.Context) (out checks) {
	up := time.Since(x.started).Round(time.Second)
	k := out.add(groupDaemon, "daemon", control.CheckOK, "keyfobd %s, pid %d, up for %s, at %s", x.opt.Version, os.Getpid(), up, x.conf().Socket)
	k.About = x.conf().Socket
	var status control.StatusResult
	x.ownWarnings(&status)
	vs := x.vault.Status()
	for _, w := range status.Warnings {
		if w != vs.Warning && !strings.HasPrefix(w, "a corrupt record was set aside: ") { // the vault's part
			out.add(groupDaemon, "daemon.warning", control.CheckWarning, "%s", w)
		}
	}
	if _, err := besideSelf("keyfob"); err != nil {
		out.failed(groupDaemon, "daemon.programs", err).State = control.CheckWarning
	}
	return out
}

// mends puts a hint that is a command into Fix, any other into Hint.
func mends(k *control.Check, hint string) {
	if strings.HasPrefix(hint, "keyfob ") && !strings.ContainsAny(hint, ",;:") && len(strings.Fields(hint)) <= 4 {
		k.Fix = hint
	} else if hint != "" {
		k.Hint = hint
	}
}

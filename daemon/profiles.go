package daemon

import (
	"context"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/settings"
	"keyfob/profiles"
)

// environment makes a map of KEY=value pairs; blank values count as unset.
func environment(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, kv := range pairs {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.TrimSpace(v) != "" {
			env[k] = v
		}
	}
	return env
}

// readProfiles reads the files afresh.
func (d *daemon) readProfiles(vault map[string]profiles.VaultKey) *profiles.Set {
	in := profiles.Input{
		ConfigFile:      d.s.AWSConfigFile,
		CredentialsFile: d.s.AWSCredentials,
		KeyfobFile:      d.s.ProfilesFile,
		Env:             d.env,
		Home:            d.env["HOME"],
		Vault:           vault,
	}
	if in.Home == "" {
		in.Home, _ = os.UserHomeDir()
	}
	if p, err := besideSelf("keyfob"); err == nil {
		in.Self = []string{p}
	}
	return profiles.Load(in)
}

// named is the query for a profile that was named, as by a flag.
func named(profile string) profiles.Query {
	return profiles.Query{Profile: profile, ProfileOrigin: profiles.Origin{Kind: profiles.FromFlag, Name: "--profile"}}
}

// stamp tells whether a file is still the one that was read. Size and
// times beside the name are what a stat gives for nothing.
type stamp struct {
	path  string
	size  int64
	mtime time.Time
	gone  bool
}

func stampOf(path string) stamp {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{path: path, gone: true}
	}
	return stamp{path: path, size: st.Size(), mtime: st.ModTime()}
}

func (d *daemon) stampFiles() []stamp {
	return []stamp{stampOf(d.s.AWSConfigFile), stampOf(d.s.AWSCredentials), stampOf(d.s.ProfilesFile)}
}

// loadProfiles reads the files at the start, when their errors belong to
// the answers.
func (d *daemon) loadProfiles() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stamps = d.stampFiles()
	d.files = d.readProfiles(d.vaultKeys(context.Background()))
	if err := d.files.Err(); err != nil {
		d.log.WithError(err).Warn("an AWS file is not usable")
	}
	d.publish(d.files)
	var active []string
	for _, e := range d.endpoints {
		if e.settings.Profile != "" {
			active = append(active, e.settings.Profile)
		}
	}
	d.broker.SetActive(active)
}

// publish makes set the one that everybody sees. d.mu is held.
func (d *daemon) publish(set *profiles.Set) {
	d.files = set
	d.broker.SetProfiles(set)
	d.learnFacts()
}

// freshProfiles reads the files again where they changed. A bad edit keeps
// what was read before, and status says so until a good one.
func (d *daemon) freshProfiles(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.stampFiles()
	same := true
	for i := range now {
		same = same && now[i] == d.stamps[i]
	}
	if same {
		return
	}
	d.readAgain(ctx, now)
}

// readAgain is freshProfiles without the look at the stamps. d.mu is held.
func (d *daemon) readAgain(ctx context.Context, now []stamp) {
	d.stamps = now
	next := d.readProfiles(d.vaultKeys(ctx))
	if err := next.Err(); err != nil {
		d.reloadErr = err
		d.log.WithError(err).Warn("an AWS file is not usable, what was read before stays")
		return
	}
	d.reloadErr = nil
	d.publish(next)
	d.log.Info("profiles read again")
}

// needsStart says what has changed in the settings that a running daemon
// does not take up, "" for nothing.
func needsStart(old, now *settings.Settings) string {
	if !reflect.DeepEqual(old.Endpoints, now.Endpoints) {
		return "the endpoints of config.toml have changed: they change when keyfobd starts again"
	}
	a, b := *old, *now
	for _, s := range []*settings.Settings{&a, &b} {
		s.Endpoints, s.ProfileRules, s.LogLevel, s.ConfigFound = nil, nil, "", false
	}
	if !reflect.DeepEqual(a, b) {
		return "settings of config.toml have changed that are used when keyfobd starts again"
	}
	return ""
}

// reload reads the rules for profiles, the log level and all profiles again.
// Endpoints are made at the start: where the settings have others now, the
// old ones stay whole, rules included, and notice says so; likewise for
// whatever else a daemon takes up at its start alone.
func (d *daemon) reload(ctx context.Context) (notice string, err error) {
	s, err := settings.Load(d.opt.Flags, func(name string) string { return d.env[name] })
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		notice = needsStart(d.s, s)
		next := *d.s
		next.ProfileRules = s.ProfileRules
		rules, rerr := newRules(&next, d.endpoints)
		if err = rerr; err == nil {
			d.setRules(rules)
			if level, lerr := logrus.ParseLevel(s.LogLevel); lerr == nil {
				d.opt.Log.SetLevel(level)
			}
		}
	}
	if err != nil {
		d.reloadErr = err
		d.log.WithError(err).Warn("the settings are not usable, what was read before stays")
		return "", err
	}
	if notice != "" && notice != d.reloadNotice {
		d.log.Warn(notice)
	}
	d.reloadErr, d.reloadNotice = nil, notice
	d.readAgain(ctx, d.stampFiles())
	d.broker.Wake("")
	return notice, d.reloadErr
}

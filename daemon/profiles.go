package daemon

import (
	"context"
	"os"
	"runtime"
	"strings"
	"time"

	"keyfob/profiles"
)

// environment makes a map of KEY=value pairs; blank values count as unset.
func environment(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, kv := range pairs {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.TrimSpace(v) != "" {
			if runtime.GOOS == "windows" {
				k = strings.ToUpper(k) // ProgramData is PROGRAMDATA there
			}
			env[k] = v
		}
	}
	return env
}

// readProfiles reads the files of c afresh.
func (d *daemon) readProfiles(c *config, vault map[string]profiles.VaultKey) *profiles.Set {
	return loadProfiles(c, d.env, vault)
}

func loadProfiles(c *config, env map[string]string, vault map[string]profiles.VaultKey) *profiles.Set {
	in := profiles.Input{
		ConfigFile:      c.AWSConfigFile,
		CredentialsFile: c.AWSCredentials,
		KeyfobFile:      c.ProfilesFile,
		Env:             env,
		Home:            env["HOME"],
		Vault:           vault,
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
	return []stamp{stampOf(d.conf().AWSConfigFile), stampOf(d.conf().AWSCredentials), stampOf(d.conf().ProfilesFile)}
}

// loadProfiles reads the files at the start, when their errors belong to
// the answers.
func (d *daemon) loadProfiles() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stamps = d.stampFiles()
	d.keys = d.vaultKeys(context.Background())
	d.files = d.readProfiles(d.conf(), d.keys)
	if err := d.files.Err(); err != nil {
		d.log.WithError(err).Warn("an AWS file is not usable")
	}
	d.publish(d.files)
	d.pinProfiles()
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
	keys := d.vaultKeys(ctx)
	next := d.readProfiles(d.conf(), keys)
	err := d.conf().checkFiles(d.conf().files()...)
	if fileErr := next.Err(); err == nil && fileErr != nil { // not a nil *profiles.Error
		err = fileErr
	}
	if err != nil {
		d.reloadErr = err
		d.log.WithError(err).Warn("an AWS file is not usable, what was read before stays")
		return
	}
	d.reloadErr, d.keys = nil, keys
	d.publish(next)
	d.log.Info("profiles read again")
}

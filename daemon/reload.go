package daemon

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"keyfob/internal/access"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
	"keyfob/internal/settings"
)

// config is the settings in force, with what is made of them once. It is not
// changed after it was made: a reload makes another one.
type config struct {
	*settings.Settings
	// withoutEnv are the settings without AWS_CONFIG_FILE and
	// AWS_SHARED_CREDENTIALS_FILE.
	withoutEnv *settings.Settings
	endpoints  []endpointConfig // as the settings have them
	rules      []access.ProfileRule
	unjudged   []*settings.Error // rules that can't be judged where they stand
	admins     *access.RuleSet   // of a machine's daemon; nil where the settings name none
}

// conf is the settings in force.
func (d *daemon) conf() *config { return d.config.Load() }

// newConfig reads what the settings name and makes rules of them. Nothing is
// opened that would have to be closed. Its errors name file and line. reading
// is told of each file before it is read.
func newConfig(s *settings.Settings, flags settings.Flags, getenv func(string) string, reading func(path string)) (*config, error) {
	c := &config{Settings: s}
	var err error
	if err = c.checkFiles(c.files()...); err != nil {
		return nil, err
	}
	if c.admins, err = c.newAdmins(); err != nil {
		return nil, err
	}
	if c.withoutEnv, err = settings.Load(flags, func(name string) string {
		if name == "AWS_CONFIG_FILE" || name == "AWS_SHARED_CREDENTIALS_FILE" {
			return ""
		}
		return getenv(name)
	}); err != nil {
		return nil, err
	}
	if errs := c.makeRules(reading); len(errs) > 0 {
		return nil, errs[0]
	}
	return c, nil
}

// allRules are the rules together.
func (c *config) allRules() access.RulesConfig {
	all := access.RulesConfig{Owner: peer.Self(), Profiles: c.rules}
	for i := range c.endpoints {
		all.Endpoints = append(all.Endpoints, c.endpoints[i].rule(c.endpoints[i].Listen))
	}
	return all
}

// ruleAt is one rule alone, with its place in config.toml.
type ruleAt struct {
	access.RulesConfig
	key string
}

func (c *config) rulePlaces() []ruleAt {
	var list []ruleAt
	for i := range c.endpoints {
		e := &c.endpoints[i]
		list = append(list, ruleAt{access.RulesConfig{Owner: peer.Self(), Endpoints: []access.EndpointRule{e.rule(e.Listen)}}, e.Key()})
	}
	for i := range c.rules {
		list = append(list, ruleAt{access.RulesConfig{Owner: peer.Self(), Profiles: c.rules[i : i+1]}, c.ProfileRules[i].Key()})
	}
	return list
}

// badRule puts the place to what access says of a rule.
func (c *config) badRule(key string, err error) *settings.Error {
	text := strings.TrimPrefix(trimCannot(err.Error()), "use ")
	for _, name := range []string{"allow_users", "allow_groups", "allow_programs"} {
		if key != "" && strings.Contains(text, name) {
			key += "." + name
			break
		}
	}
	return c.Bad(key, hintOf(err), "%s", text)
}

// accessPrograms keeps nil, which is every program, apart from the empty list.
func accessPrograms(programs []settings.Program) []access.Program {
	if programs == nil {
		return nil
	}
	list := make([]access.Program, 0, len(programs))
	for _, p := range programs {
		list = append(list, access.Program(p))
	}
	return list
}

// setRules swaps the rules everywhere.
func (d *daemon) setRules(r *access.RuleSet) {
	d.rules.Store(r)
	d.broker.SetRules(r)
}

// reload reads the settings and all profiles again and puts them in force
// together. Either everything is done or nothing: a setting that can't be
// used, an address that can't be bound, AWS files that the settings newly
// name and that are no grammar. An edit of the same AWS files that is none
// keeps those alone as they were. notice names what a running daemon can't
// change, "" for nothing.
func (d *daemon) reload(ctx context.Context) (notice string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.opt.Notify.Reloading()
	defer func() { _ = d.opt.Notify.Ready("serving " + d.conf().Socket) }()
	getenv := func(name string) string { return d.env[name] }
	old := d.conf()
	stamps := []stamp{stampOf(old.ConfigFile)}
	defer func() { d.settingStamps = stamps }()
	var next *config
	s, err := settings.Load(d.opt.Flags, getenv)
	if err == nil {
		notice = keepFixed(s, old.Settings)
		next, err = newConfig(s, d.opt.Flags, getenv, func(path string) { stamps = append(stamps, stampOf(path)) })
	}
	if err == nil {
		err = d.apply(ctx, old, next)
	}
	if err != nil {
		d.reloadErr = err
		d.log.WithError(err).Warn("the settings are not usable, what was read before stays")
		return "", err
	}
	if notice != "" && notice != d.reloadNotice {
		d.log.Warn(notice)
	}
	d.reloadNotice = notice
	d.broker.Wake("")
	return notice, d.reloadErr
}

// keepFixed puts back what can't change while the daemon runs, and says so.
func keepFixed(s, old *settings.Settings) (notice string) {
	var changed []string
	for _, f := range []struct {
		name     string
		now, was *string
	}{
		{"data_dir", &s.DataDir, &old.DataDir},
		{"socket", &s.Socket, &old.Socket},
		{"keystore.backend", &s.Keystore, &old.Keystore},
	} {
		if *f.now != *f.was {
			changed = append(changed, f.name)
			*f.now = *f.was
		}
	}
	if len(changed) == 0 {
		return ""
	}
	return "settings have changed that are used when keyfobd starts again: " + strings.Join(changed, ", ")
}

// apply puts next in force. d.mu is held. On an error nothing has changed.
func (d *daemon) apply(ctx context.Context, old, next *config) error {
	keys := d.vaultKeys(ctx)
	set := d.readProfiles(next, keys)
	filesErr := set.Err()
	if filesErr != nil && (next.AWSConfigFile != old.AWSConfigFile || next.AWSCredentials != old.AWSCredentials || next.ProfilesFile != old.ProfilesFile) {
		return filesErr
	}
	change, err := d.prepareEndpoints(ctx, next)
	if err != nil {
		return err
	}
	metrics, err := d.prepareMetrics(ctx, next)
	if err != nil {
		change.undo()
		return err
	}

	// From here on nothing fails.
	d.config.Store(next)
	d.stamps = d.stampFiles()
	d.reloadErr = nil
	if filesErr != nil {
		d.reloadErr = filesErr
		d.log.WithError(filesErr).Warn("an AWS file is not usable, what was read before stays")
		set = d.files.WithVault(keys)
	}
	d.files, d.keys = set, keys
	d.broker.SetProfiles(set)
	change.commit()
	d.learnFacts()
	d.pinProfiles()
	d.broker.SetSigninTimeout(next.SignInTimeout)
	d.queue.SetExpiry(next.SignInTimeout)
	d.shared.run.SetTimeout(next.ProcessTimeout)
	d.applyLog(old, next)
	if next.Audit != old.Audit {
		d.openAudit(next.Settings)
	}
	metrics.commit()
	d.warnUnjudged(next)
	if next.PassphraseFile != old.PassphraseFile && !d.lockedByHand.Load() && d.vault.Status().Locked {
		d.group.Go(func() error {
			if err := d.unlockVault(d.life); err != nil {
				d.log.WithError(err).Warn("vault stays locked")
			} else {
				d.unlocked(d.life)
			}
			return nil
		})
	}
	select {
	case d.rewatch <- struct{}{}:
	default:
	}
	d.log.Info("settings and profiles read again")
	return nil
}

// applyLog sets the log's level and format.
func (d *daemon) applyLog(old, next *config) {
	if level, err := logrus.ParseLevel(next.LogLevel); err == nil {
		d.opt.Log.SetLevel(level)
	}
	if next.LogFormat != old.LogFormat {
		format := next.LogFormat
		if format == "" {
			format = d.opt.LogFormat
		}
		if l, err := logging.New(io.Discard, next.LogLevel, format); err == nil {
			f := l.Formatter
			if d.opt.Journal {
				f = logging.ForJournal(f)
			}
			d.opt.Log.SetFormatter(f)
		}
	}
}

func (d *daemon) warnUnjudged(c *config) {
	for _, rule := range c.unjudged {
		d.log.WithError(rule).Warn("a rule can't be judged where it stands: it refuses everybody")
	}
}

// freshSettings reloads when config.toml or a file that it names has
// changed.
func (d *daemon) freshSettings(ctx context.Context) {
	d.mu.Lock()
	same := !slices.ContainsFunc(d.settingStamps, func(s stamp) bool { return s != stampOf(s.path) })
	d.mu.Unlock()
	if !same {
		_, _ = d.reload(ctx) // logged there, and shown by status
	}
}

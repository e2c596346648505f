package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"keyfob/imds"
	"keyfob/internal/access"
	"keyfob/internal/awsclient"
	"keyfob/internal/broker"
	"keyfob/internal/cred"
	"keyfob/internal/interact"
	"keyfob/internal/logging"
	"keyfob/internal/metrics"
	"keyfob/internal/ops"
	"keyfob/internal/peer"
	"keyfob/internal/service"
	"keyfob/internal/settings"
	"keyfob/keystore"
	"keyfob/profiles"
)

// Options is what a daemon is made of.
type Options struct {
	Settings *settings.Settings
	Flags    settings.Flags // as given, for a reload
	Version  string
	OnDemand bool     // end after Settings.IdleExit without callers
	Env      []string // KEY=value, the environment that counts as the daemon's
	Log      *logrus.Logger
	// LogFormat is the format where the settings name none: text or json.
	LogFormat string
	Journal   bool               // the log goes to journald's stream
	Ready     func()             // called once every listener accepts
	Inherited *service.Inherited // listeners of the service manager, nil for none
	Notify    *service.Notifier  // nil for none
}

// Run serves until ctx ends or a client asks it to stop, and returns after
// joining everything that it started. An error names what could not be
// started: a socket, an address, the data directory.
func Run(ctx context.Context, opt Options) error {
	if err := harden(); err != nil {
		return err
	}
	d, err := newDaemon(opt)
	if err != nil {
		return err
	}
	defer d.close()
	return d.run(ctx)
}

// daemon is one running keyfobd.
type daemon struct {
	opt     Options
	config  atomic.Pointer[config] // see conf
	log     *logrus.Entry
	env     map[string]string
	started time.Time
	uid     string
	person  string // in session names, so that CloudTrail shows who it was

	socket    *controlSocket
	dirLock   *flock.Flock
	vault     *keystore.Vault
	store     *startingStore // the vault, for whoever must wait for the first unlock
	broker    *broker.Broker
	queue     *interact.Queue
	notifier  *interact.Notifier // nil where there is no keyfob-signin
	desktop   desktop
	grants    *access.Grants
	consents  *access.Consents
	limits    *imds.Limits             // of connections, for all endpoints together
	audit     atomic.Pointer[auditing] // nil where the settings want none
	auditKey  atomic.Pointer[[32]byte] // of its chain; nil while the vault is locked
	metrics   *metrics.Metrics
	peers     *peer.Resolver
	pool      *awsclient.Pool // connections to AWS
	shared    shared          // of the sources
	tokens    atomic.Pointer[access.Tokens]
	temporary *access.Tokens // made at the start, good until they end
	rules     atomic.Pointer[access.RuleSet]

	protectedBy atomic.Pointer[protectedBy]
	skew        atomic.Int64 // AWS's clock minus ours in nanoseconds, as last told

	serving atomic.Pointer[[]*endpoint] // see endpoints
	exec    execEndpoint
	issued  issuedKeys

	lockedByHand atomic.Bool // `keyfob lock`: nothing is handed out

	confirming confirming
	refusals   refusalLog
	variety    variety
	upstream   upstream
	reading    readers
	scanning   turn // who reads the audit log
	listing    turn // who has profiles resolved for a list or an explanation
	recovery   recoveryAsking

	group    *errgroup.Group
	life     context.Context // of the group
	stop     context.CancelCauseFunc
	calls    atomic.Uint64 // requests of any kind, for idle exit
	conns    connections
	firstTry chan struct{} // closed when the first unlock was tried

	// mu guards what follows, and changes of config and serving: one reload
	// at a time.
	mu            sync.Mutex
	files         *profiles.Set
	keys          map[string]profiles.VaultKey // those of files
	stamps        []stamp                      // of the AWS files
	settingStamps []stamp                      // of config.toml and the files that it names
	reloadErr     error
	// reloadNotice is what a reload could not change, "" for nothing.
	reloadNotice string
	leaving      []*endpoint // removed, and not ended yet
	wide         wide        // see tooWide
	measuring    *measuring  // the metrics' listener, nil for none

	execMu  sync.Mutex      // guards watched
	watched map[string]bool // ids of grants whose program's keyfob is watched

	listMu sync.Mutex    // guards what follows
	listOf *profiles.Set // of which lists are the profiles
	lists  []profiles.Listed

	rewatch chan struct{} // cap 1: other files may have to be watched
}

// devicesEnd bounds what the end waits for a call into a TPM or a token,
// which nothing can break off.
const devicesEnd = time.Second

// errStopped is the cause of an end that a client asked for.
var errStopped = errors.New("stopped by a client")

// errIdle is the cause of an on-demand daemon's own end.
var errIdle = errors.New("nobody has asked for a while")

func newDaemon(opt Options) (_ *daemon, err error) {
	d := &daemon{
		opt:      opt,
		log:      logrus.NewEntry(opt.Log),
		env:      environment(opt.Env),
		started:  time.Now(),
		uid:      peer.Self(),
		person:   ops.ThisPerson(),
		firstTry: make(chan struct{}),
		rewatch:  make(chan struct{}, 1),
		scanning: newTurn(),
		listing:  newTurn(),
	}
	d.serving.Store(&[]*endpoint{})
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	d.settingStamps = []stamp{stampOf(opt.Settings.ConfigFile)}
	conf, err := newConfig(opt.Settings, opt.Flags, func(name string) string { return d.env[name] }, func(path string) {
		d.settingStamps = append(d.settingStamps, stampOf(path))
	})
	if err != nil {
		return nil, err
	}
	d.config.Store(conf)
	d.warnUnjudged(conf)
	if d.uid == "" {
		return nil, errors.New("cannot tell which user this daemon runs as")
	}
	if err := checkDataDir(d.conf().DataDir, d.system()); err != nil {
		return nil, err
	}
	if d.system() {
		d.conns.limit, d.conns.limitUser = maxMachine, maxUser
	}
	if d.socket, err = listenControl(d.conf().Socket, d.system(), opt.Inherited.Control(d.conf().Socket)); err != nil {
		return nil, err
	}
	if d.dirLock, err = lockDataDir(d.conf().DataDir); err != nil {
		return nil, err
	}
	d.vault, err = keystore.Open(keystore.Config{
		Dir:            filepath.Join(d.conf().DataDir, "vault"),
		Backend:        d.conf().Keystore,
		PassphraseFile: d.conf().PassphraseFile,
		Passphrase:     cred.NewSecret(d.conf().RevealPassphrase()),
		Log:            d.log,
	})
	if err != nil {
		return nil, err
	}
	d.store = &startingStore{Vault: d.vault, first: d.firstTry}
	d.peers = peer.NewResolver()
	d.pool = awsclient.NewPool(awsclient.PoolConfig{})
	if err := d.temporaryTokens(); err != nil {
		return nil, err
	}
	first, err := d.prepareEndpoints(context.Background(), conf)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			first.undo()
		}
	}()
	d.metrics = metrics.New(metrics.Config{Version: opt.Version, Started: d.started, Collect: d.measure})
	counting, err := d.prepareMetrics(context.Background(), conf)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			counting.undo()
		}
	}()
	d.notifier = d.newNotifier()
	d.desktop.dialog = d.newDialog()
	d.limits = imds.NewLimits()
	d.queue = interact.NewQueue(interact.Config{Expiry: d.conf().SignInTimeout, Log: d.log})
	d.grants = access.OpenGrants(d.vault, filepath.Join(d.conf().DataDir, "grants"))
	d.consents = access.OpenConsents(d.vault, d.log)
	d.openSources()
	d.broker = broker.New(broker.Config{
		Sources:       (*sources)(d),
		Store:         d.store,
		Asker:         d.shared.mfa,
		Rules:         first.rules,
		Confirm:       d.confirm,
		SigninTimeout: d.conf().SignInTimeout,
		Announce:      d.announce,
		Fetched:       d.queue.Cancel,
		Log:           d.log,
	})
	first.commit()
	counting.commit()
	d.loadProfiles()
	d.openAudit(conf.Settings)
	return d, nil
}

// close frees what newDaemon opened; run has ended by then.
func (d *daemon) close() {
	for _, e := range d.endpoints() {
		e.close()
	}
	if d.measuring != nil {
		_ = d.measuring.listener.Close()
	}
	d.closeAudit()
	if d.vault != nil {
		_ = d.vault.Close()
	}
	if d.shared.devices != nil {
		ctx, cancel := context.WithTimeout(context.Background(), devicesEnd)
		d.shared.devices.Wait(ctx)
		cancel()
	}
	if d.pool != nil {
		d.pool.CloseIdle()
	}
	if d.peers != nil {
		_ = d.peers.Close()
	}
	if d.dirLock != nil {
		_ = d.dirLock.Unlock()
	}
	if d.socket != nil {
		d.socket.Release()
	}
}

func (d *daemon) run(ctx context.Context) error {
	ctx, d.stop = context.WithCancelCause(ctx)
	defer d.stop(nil)
	var gctx context.Context
	d.group, gctx = errgroup.WithContext(ctx)
	d.life = gctx
	d.group.Go(func() error { return d.broker.Run(gctx) })
	d.mu.Lock()
	for _, e := range d.endpoints() {
		d.serve(e)
	}
	if d.measuring != nil {
		d.serveMetrics(d.measuring)
	}
	d.mu.Unlock()
	d.group.Go(func() error { return d.serveControl(gctx) })
	d.group.Go(func() error { d.firstUnlock(gctx); return nil })
	d.group.Go(func() error { return d.keepHouse(gctx) })
	if d.notifier != nil {
		d.group.Go(func() error {
			<-gctx.Done()
			ctx, cancel := context.WithTimeout(context.Background(), notifyEnd)
			defer cancel()
			d.notifier.Close(ctx)
			return nil
		})
	}
	hup, stopHUP := hangups()
	defer stopHUP()
	d.group.Go(func() error { return d.reloadOnSignal(gctx, hup) })
	d.group.Go(func() error { d.watchFiles(gctx); return nil })

	d.log.WithFields(logrus.Fields{logging.Version: d.opt.Version, logging.Socket: d.conf().Socket, logging.Backend: d.conf().Keystore}).Info(readyMessage)
	if rest := d.opt.Inherited.Rest(); len(rest) > 0 {
		d.log.Warn("nothing of the settings listens at what the service manager handed over: " + strings.Join(rest, ", "))
		_ = d.opt.Inherited.Close()
	}
	if d.opt.Ready != nil {
		d.opt.Ready()
	}
	if err := d.opt.Notify.Ready("serving " + d.conf().Socket); err != nil {
		d.log.WithError(err).Warn("the service manager does not know that keyfobd is ready")
	}
	d.group.Go(func() error { return d.opt.Notify.Watch(gctx, d.healthy) })
	d.group.Go(func() error { <-gctx.Done(); _ = d.opt.Notify.Stopping(); return nil })
	err := d.group.Wait()
	d.consents.Close()
	switch cause := context.Cause(ctx); {
	case errors.Is(err, context.Canceled), errors.Is(err, errStopped), errors.Is(err, errIdle):
		err = nil
		fallthrough
	case err == nil:
		d.log.WithField(logging.Reason, fmt.Sprint(cause)).Info(endedMessage)
	default:
		d.log.WithError(err).Error(endedMessage)
	}
	return err
}

// How long the endpoints wait for the first unlock at most. Metadata clients
// give up after a second, container clients wait longer.
const (
	imdsPatience      = 700 * time.Millisecond
	containerPatience = 5 * time.Second
)

func (d *daemon) awaitFirstTry(ctx context.Context, kind string) {
	patience := imdsPatience
	if kind == cred.ViaContainer {
		patience = containerPatience
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-d.firstTry:
	case <-t.C:
	case <-ctx.Done():
	}
}

// keepHouse looks once a minute at what no event tells: an on-demand daemon
// that nobody needs, grants whose program has ended, a keyring that is back.
func (d *daemon) keepHouse(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	last, since := d.calls.Load(), time.Now().Round(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d.pruneGrants(ctx)
		d.sweepExec()
		d.retryUnlock(ctx)
		d.lookAfterCertificates(ctx)
		if d.exec.address() == "" {
			d.resumeExec() // its port may have been taken at the start
		}
		if n := d.calls.Load(); n != last || d.hasExecGrants() {
			last, since = n, time.Now().Round(0)
		}
		if d.opt.OnDemand && time.Now().Round(0).Sub(since) >= d.conf().IdleExit {
			d.stop(errIdle)
		}
	}
}

// checkDataDir makes the data directory, of a machine's daemon or a person's,
// or refuses one that others can enter.
func checkDataDir(dir string, machine bool) error {
	if err := makePrivate(dir, machine); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the data directory: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("cannot use the data directory %s: it is no directory", dir)
	}
	return checkPrivate(dir, st)
}

// lockDataDir makes this daemon the only one on its data directory,
// whatever sockets there are: two would spend each other's one-use tokens
// and refresh everything twice. The lock is the kernel's.
func lockDataDir(dir string) (*flock.Flock, error) {
	path := filepath.Join(dir, "daemon.lock")
	pidFile := filepath.Join(dir, "daemon.pid") // a locked file can't be read on Windows
	lock := flock.New(path, flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("cannot lock the data directory %s: %w", dir, err)
	}
	if !ok {
		text := "another daemon does"
		if pid := lockHolder(pidFile); pid != "" {
			text += ", pid " + pid
		}
		return nil, cred.WithHint(fmt.Errorf("cannot use the data directory %s: %s", dir, text), "end that one, or choose another --data-dir")
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		_ = lock.Unlock()
		return nil, fmt.Errorf("cannot lock the data directory %s: %w", dir, err)
	}
	return lock, nil
}

// lockHolder reads the pid that a lock's holder wrote, "" for none.
func lockHolder(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	pid := strings.TrimSpace(string(b))
	if _, err := strconv.Atoi(pid); err != nil {
		return ""
	}
	return pid
}

// besideSelf finds a program of ours next to this one.
func besideSelf(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot find %s: %w", name, err)
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	p := filepath.Join(filepath.Dir(self), name+exeSuffix)
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("cannot find %s beside %s: %w", name, self, err)
	}
	return p, nil
}

// check judges a caller by the current rules.
func (d *daemon) check(c peer.Caller, profile string, via cred.Endpoint) error {
	return d.rules.Load().Check(c, profile, via)
}

// checkGrant judges the caller of a grant by the current rules.
func (d *daemon) checkGrant(c peer.Caller, g *access.Grant, profile string, via cred.Endpoint) error {
	if d.system() && via.Listen == d.exec.address() {
		// The listener of exec is for whoever may make a grant there: the
		// rules judge as they did then.
		via = cred.Endpoint{Kind: cred.ViaExec}
	}
	if err := d.rules.Load().CheckGrant(c, g, profile, via); err != nil {
		return err
	}
	if !g.Confirmed && d.saysProtected(profile) {
		return &access.Denied{Reason: "the profile " + profile + " is protected now, and nobody confirmed the grant when it was made"}
	}
	return nil
}

// healthy is the watchdog's question: whether what every request needs can
// be had.
func (d *daemon) healthy(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !d.mu.TryLock() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("a reload does not end")
		}
	}
	d.mu.Unlock()
	return nil
}

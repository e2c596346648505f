package daemon

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/audit"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
	"keyfob/internal/settings"
)

// auditKeyRecord is what the key of the audit log's chain is made of.
const auditKeyRecord = "audit/key"

// flushLimit bounds what a lock waits for the audit log.
const flushLimit = 2 * time.Second

// auditing is one life of the audit log: a reload with other sizes begins
// another one behind it.
type auditing struct {
	log     *audit.Log
	forward *audit.Forwarder // nil for none
	stop    context.CancelFunc
	done    chan struct{}
}

func (d *daemon) auditPath() string { return filepath.Join(d.conf().DataDir, "audit.jsonl") }

// openAudit begins the audit log as the settings have it, after the one
// before has ended. d.mu is held, or the daemon does not run yet.
func (d *daemon) openAudit(s *settings.Settings) {
	old := d.audit.Load()
	var next *auditing
	if !s.Audit.Off {
		ctx, stop := context.WithCancel(context.Background())
		next = &auditing{stop: stop, done: make(chan struct{}), forward: d.forwarder(s)}
		how := audit.Config{Path: d.auditPath(), Key: d.chainKey, Store: d.vault, MaxSize: s.Audit.MaxSize, Keep: s.Audit.Keep, Log: d.log}
		if next.forward != nil {
			how.Forward = next.forward.Forward
		}
		next.log = audit.Open(how)
		go func() {
			defer close(next.done)
			if next.forward != nil {
				// It ends after the log: the last lines are to go out too.
				forwarding, end := context.WithCancel(context.Background())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					_ = next.forward.Run(forwarding)
				}()
				defer func() { end(); <-ended }()
			}
			if old != nil {
				<-old.done
			}
			if err := next.log.Run(ctx); err != nil {
				d.log.WithError(err).Error("the audit log is not written")
			}
		}()
	}
	d.audit.Store(next)
	if old != nil {
		old.stop()
		if next == nil {
			<-old.done
		}
	}
}

// forwarder takes the log's lines to the collectors of the settings; nil where
// there are none.
func (d *daemon) forwarder(s *settings.Settings) *audit.Forwarder {
	var sinks []audit.Sink
	if s.Audit.Journal {
		sinks = append(sinks, audit.NewJournal(audit.JournalSocket))
	}
	if s.Audit.Syslog != "" {
		if sink, err := audit.NewSyslog(s.Audit.Syslog); err == nil {
			sinks = append(sinks, sink)
		} else { // the settings were checked
			d.log.WithError(err).Error("lines of the audit log do not reach the syslog server")
		}
	}
	if s.Audit.OTLP != "" {
		sinks = append(sinks, audit.NewOTLP(s.Audit.OTLP, d.opt.Version))
	}
	if len(sinks) == 0 {
		return nil
	}
	return audit.NewForwarder(d.log, sinks...)
}

// currentAudit is the audit log, nil where the settings want none. One that has
// just been made by a reload is waited for: until the one before has ended,
// it can't say what is in the file.
func (d *daemon) currentAudit(ctx context.Context) (*audit.Log, error) {
	a := d.audit.Load()
	if a == nil {
		return nil, nil
	}
	select {
	case <-a.log.Running():
		return a.log, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// closeAudit writes what is left and joins the audit log: after everything
// that could still record.
func (d *daemon) closeAudit() {
	if a := d.audit.Load(); a != nil {
		a.stop()
		<-a.done
	}
}

// chainKey is the key of the chain, while the vault is open.
func (d *daemon) chainKey() (key [32]byte, ok bool) {
	if k := d.auditKey.Load(); k != nil {
		return *k, true
	}
	return key, false
}

// keptAuditKey takes the chain's key from the vault; a new vault gets one.
func (d *daemon) keptAuditKey(ctx context.Context) error {
	v, err := d.vault.Get(ctx, auditKeyRecord)
	if errors.Is(err, cred.ErrNotFound) {
		var secret [32]byte
		if _, err := rand.Read(secret[:]); err != nil {
			return fmt.Errorf("cannot make a key: %w", err)
		}
		v = cred.SecretBytes(secret[:])
		err = d.vault.Put(ctx, auditKeyRecord, v)
	}
	if err != nil {
		return err
	}
	raw, err := hkdf.Key(sha256.New, v.AppendReveal(nil), nil, "keyfob audit chain", 32)
	if err != nil {
		return err
	}
	key := [32]byte(raw)
	d.auditKey.Store(&key)
	if a := d.audit.Load(); a != nil {
		a.log.KeyChanged()
	}
	return nil
}

// lockAudit seals what was recorded, then forgets the key.
func (d *daemon) lockAudit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	log, err := d.currentAudit(ctx)
	if err == nil && log != nil {
		err = log.Flush(ctx)
	}
	if err != nil {
		d.log.WithError(err).Warn("the audit log's last entries are not sealed")
	}
	d.auditKey.Store(nil)
}

// recorder takes what is to be recorded, whatever the settings say of it now.
type recorder daemon

func (d *daemon) recorder() cred.Recorder { return d.metrics.Recorder((*recorder)(d)) }

// Record notes one hand-out or refusal.
func (r *recorder) Record(e cred.Event) {
	if a := r.audit.Load(); a != nil {
		a.log.Record(e)
	}
}

// handOut records that a command got credentials.
func (d *daemon) handOut(r cred.Request, snap *cred.Snapshot, grant string) {
	d.recorder().Record(cred.Event{Kind: cred.EventHandOut, Profile: r.Profile, Via: r.Via, Grant: grant, Caller: r.Caller,
		AccessKeyID: snap.AccessKeyID, AccountID: snap.AccountID, Expires: snap.AdvertisedExpiry(time.Now())})
}

// refusal records that keyfob's own rules refused a command; other failures
// are none.
func (d *daemon) refusal(r cred.Request, err error) {
	if !errors.Is(err, cred.ErrDenied) {
		return
	}
	reason := err.Error()
	var denied *access.Denied
	if errors.As(err, &denied) {
		reason = denied.Reason
	}
	d.recorder().Record(cred.Event{Kind: cred.EventRefusal, Profile: r.Profile, Via: r.Via, Caller: r.Caller, Reason: reason})
}

// turnedAway records a caller of the control socket who is not served.
func (d *daemon) turnedAway(who peer.Caller, reason string) {
	d.recorder().Record(cred.Event{Kind: cred.EventRefusal, Via: cred.Endpoint{Kind: "control"}, Caller: who, Reason: reason})
}

// readers are the users who read the audit log.
type readers struct {
	mu      sync.Mutex // guards what follows
	busy    map[string]int
	flushed map[string]time.Time
}

const (
	manyReaders = 2 // of one user at a time
	flushAgain  = 10 * time.Second
)

func (r *readers) take(uid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[uid] >= manyReaders {
		return false
	}
	if r.busy == nil {
		r.busy = map[string]int{}
	}
	r.busy[uid]++
	return true
}

func (r *readers) give(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[uid]--; r.busy[uid] == 0 {
		delete(r.busy, uid)
	}
}

// flush reports whether the user's look may flush what is counted.
func (r *readers) flush(uid string) bool {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.flushed, func(_ string, at time.Time) bool { return now.Sub(at) >= flushAgain })
	if _, lately := r.flushed[uid]; lately {
		return false
	}
	if r.flushed == nil {
		r.flushed = map[string]time.Time{}
	}
	r.flushed[uid] = now
	return true
}

// turn is what one at a time has, of all users: the daemon answers on one
// processor, where two who compute for long keep everybody else waiting.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn. give ends it. The error is the context's.
func (t turn) take(ctx context.Context) (give func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *daemon) auditEntries(c *call) (any, error) {
	p, err := decode[control.AuditParams](c)
	if err != nil {
		return nil, err
	}
	f := audit.Filter{Profile: p.Profile, Program: p.Program, AccessKeyID: p.AccessKeyID, Event: p.Event, Limit: p.Limit, After: p.After}
	if !c.admin { // his own entries, without what the rules' owner is told
		f.UID, f.HideReason = c.caller.Caller.UID, true
		// Each look that flushes ends what is counted into one line: without
		// a bound he writes as many as he likes. What he reads is a scan.
		if !d.reading.take(f.UID) {
			return nil, &control.Error{Code: control.CodeUnavailable, Message: fmt.Sprintf("cannot read the audit log: you do so %d times already at this moment", manyReaders)}
		}
		defer d.reading.give(f.UID)
		f.Written = !d.reading.flush(f.UID)
	}
	for _, t := range []struct {
		text string
		to   *time.Time
	}{{p.Since, &f.Since}, {p.Until, &f.Until}} {
		if t.text == "" {
			continue
		}
		if *t.to, err = time.Parse(time.RFC3339, t.text); err != nil {
			return nil, &control.Error{Code: control.CodeUsage, Message: fmt.Sprintf("cannot read the audit log: %q is no time", t.text), Hint: "such as 2026-01-31T12:00:00Z"}
		}
	}
	give, err := d.scanning.take(c.ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read the audit log: %w", err)
	}
	defer give()
	log, err := d.currentAudit(c.ctx)
	if err != nil {
		return nil, err
	}
	var page audit.Page
	if log != nil {
		page, err = log.Read(c.ctx, f)
	} else {
		page, err = audit.Read(d.auditPath(), f)
	}
	if err != nil {
		return nil, err
	}
	return control.AuditResult{Entries: page.Entries, Next: page.Next}, nil
}

func (d *daemon) auditVerify(c *call) (any, error) {
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	give, err := d.scanning.take(c.ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot verify the audit log: %w", err)
	}
	defer give()
	log, err := d.currentAudit(c.ctx)
	if err != nil {
		return nil, err
	}
	var r audit.Report
	if log != nil {
		if r, err = log.Verify(c.ctx); err != nil {
			return nil, err
		}
	} else {
		key, ok := d.chainKey()
		if !ok {
			return nil, cred.ErrLocked
		}
		r = audit.Verify(d.auditPath(), key)
	}
	return control.AuditVerifyResult{OK: r.OK, Entries: r.Entries, Files: r.Files, First: r.First, Last: r.Last,
		File: r.File, Line: r.Line, Reason: r.Reason, Warnings: r.Warnings}, nil
}

// recallAudit is keptAuditKey for recall.
func (d *daemon) recallAudit(ctx context.Context) {
	if err := d.keptAuditKey(ctx); err != nil {
		d.log.WithError(err).WithField(logging.Record, auditKeyRecord).Warn("the audit log's chain goes on without a key")
	}
}

// expect tells the audit log who will soon be handed something, so that the
// program's parent is looked for while it is there.
func (d *daemon) expect(c peer.Caller) {
	if a := d.audit.Load(); a != nil {
		a.log.Expect(c)
	}
}

package rolesanywhere

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/profiles"
)

// Deps is what the sources of this package work with. Every field may be
// left out but Store, where certificates, passphrases or PINs are in the
// vault.
type Deps struct {
	Store cred.Store // records CertificateRecord(name) and PassphraseRecord(where)
	// Pool shares connections and clock offsets between all sources of a
	// daemon; with nil each fetch makes and closes its own connection.
	Pool *awsclient.Pool
	Log  *logrus.Entry // nil for none
	// Skew is told AWS's clock minus ours after each answer that shows it,
	// 0 when they agree within a minute. It is called before Fetch returns.
	Skew func(d time.Duration)
	// Devices are the TPM and the tokens of this machine, shared by all
	// sources of a daemon; nil gives each source its own view of them.
	Devices *Devices
	// TPM is the device or Unix socket of the TPM 2.0, "" for DefaultTPM.
	// Windows has one TPM, and no name for it.
	TPM string
	// PKCS11Module is the PKCS #11 module of URIs without a module-path, ""
	// for p11-kit's, which knows the modules that are installed.
	PKCS11Module string
}

// DefaultTPM is the TPM with the kernel's resource manager: it lets more
// than one program use the TPM at a time.
const DefaultTPM = "/dev/tpmrm0"

// WarnBefore is how long before its end a certificate is warned of
// (CONTRACT.md §7).
const WarnBefore = 14 * 24 * time.Hour

// warnAgain keeps a warning from being repeated at each refresh.
const warnAgain = 24 * time.Hour

// source gives the sessions of one role for one certificate.
type source struct {
	link profiles.Link
	d    Deps
	settings

	mu     sync.Mutex           // guards what follows
	known  *seen                // the certificate as it was read last, nil before
	warned map[string]time.Time // when a warning was logged last
}

// seen is what is remembered of a certificate that was read.
type seen struct {
	expires time.Time
	files   []fileState
}

// New returns the source of a roles-anywhere link, with Reach, Upstream and
// CertificateExpires. It opens nothing. Errors (Is cred.ErrConfig): a
// parameter that no call could be made with, another kind of link.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	set, err := readSettings(link)
	if err != nil {
		return nil, err
	}
	if d.Devices == nil {
		d.Devices = NewDevices()
	}
	if d.TPM == "" {
		d.TPM = DefaultTPM
	}
	link.Client.Region = set.region
	return &source{link: link, d: d, settings: set, warned: map[string]time.Time{}}, nil
}

// Interactive is false: a certificate needs no person.
func (s *source) Interactive() bool { return false }

// Upstream names the endpoint that the link calls, "" where the settings
// give none.
func (s *source) Upstream() string {
	u, err := endpoint(context.Background(), s.link.Client)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Reach tells whether Roles Anywhere can be connected to. An error that Is
// cred.ErrConfig says that the settings name no endpoint.
func (s *source) Reach(ctx context.Context) error {
	u, err := endpoint(ctx, s.link.Client)
	if err != nil {
		return &settingsError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	pool := s.d.Pool
	if pool == nil {
		pool = awsclient.NewPool(awsclient.PoolConfig{})
	}
	return pool.Reach(ctx, u)
}

// Fetch reads certificate and key, judges them, and makes one CreateSession.
func (s *source) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	c := &call{s: s, pool: s.d.Pool}
	if c.pool == nil {
		c.pool = awsclient.NewPool(awsclient.PoolConfig{})
		defer c.pool.CloseIdle()
	}
	var err error
	if c.endpoint, err = endpoint(ctx, s.link.Client); err != nil {
		return cred.Credentials{}, c.failed(err)
	}
	if c.id, err = s.identity(ctx); err != nil {
		return cred.Credentials{}, err
	}
	now := time.Now().Add(c.pool.Skew(c.endpoint.Host))
	if err := c.id.judge(now); err != nil {
		return cred.Credentials{}, err
	}
	s.warn(c.id, now)
	return c.createSession(ctx, now)
}

// CertificateExpires is when the certificate ends, also when it has ended;
// ok is false while it is not known. It reads files and the Store, and never
// a token: what is there is known from the last fetch.
func (s *source) CertificateExpires(ctx context.Context) (expires time.Time, ok bool) {
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	fresh := s.certificate.kind == onToken || known != nil && !s.inVault() && unchanged(known.files)
	if !fresh {
		if _, err := s.identity(ctx); err == nil {
			s.mu.Lock()
			known = s.known
			s.mu.Unlock()
		}
	}
	if known == nil {
		return time.Time{}, false
	}
	return known.expires, true
}

// inVault: records can be replaced without a file that tells.
func (s *source) inVault() bool {
	return s.certificate.kind == inVault || s.key.kind == inVault || s.chain.kind == inVault
}

// remember keeps what CertificateExpires tells.
func (s *source) remember(id *identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = &seen{expires: id.leaf.NotAfter.UTC(), files: id.files}
}

// warn logs what does not keep a session from being made yet.
func (s *source) warn(id *identity, now time.Time) {
	for i, c := range id.chained() {
		left := c.NotAfter.Sub(now)
		if left > WarnBefore {
			continue
		}
		what, help := "the certificate", "renew it: keyfob reads the new one by itself"
		if i > 0 {
			what = "an intermediate certificate"
		}
		text := fmt.Sprintf("%s %s ends in %s", what, name(c), days(left))
		if left <= 0 {
			text = fmt.Sprintf("%s %s ended at %s", what, name(c), stamp(c.NotAfter))
		}
		s.say("end "+c.SerialNumber.Text(16)+name(c), text, help, now)
	}
	for _, w := range id.warnings {
		s.say(w.text, w.text, w.help, now)
	}
}

// say logs a warning once a day.
func (s *source) say(key, text, help string, now time.Time) {
	s.mu.Lock()
	last, told := s.warned[key]
	again := !told || now.Sub(last) >= warnAgain
	if again {
		s.warned[key] = now
	}
	s.mu.Unlock()
	if again && s.d.Log != nil {
		s.d.Log.WithField(logging.Profile, s.link.Profile).WithField("certificate", s.certificate.String()).WithField("hint", help).Warn(text)
	}
}

// days is a time until an end, for people.
func days(d time.Duration) string {
	switch n := int(d / (24 * time.Hour)); {
	case n > 1:
		return fmt.Sprintf("%d days", n)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	default:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

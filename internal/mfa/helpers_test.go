package mfa

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/keystore"
)

const serial = "arn:aws:iam::111122223333:mfa/alice"

// seedText is the key of RFC 6238's appendix B, "12345678901234567890".
const seedText = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

var question = cred.Question{Kind: cred.AskMFA, Profile: "dev", Serial: serial, Text: "MFA code"}

// person answers what codes holds, in turn; with none left nobody is there.
type person struct {
	mu    sync.Mutex // guards what follows
	codes []string
	asked []cred.Question
	keys  []cred.LinkKey
	wait  chan struct{} // not nil: an answer comes when it is closed
	late  time.Duration // how long it takes to say that nobody is there
}

func (p *person) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	p.mu.Lock()
	p.asked, p.keys = append(p.asked, q), append(p.keys, key)
	none := len(p.codes) == 0
	p.mu.Unlock()
	if none {
		time.Sleep(p.late)
		return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile, Message: "cannot ask for the code: nobody is there to answer"}
	}
	if p.wait != nil {
		select {
		case <-p.wait:
		case <-ctx.Done():
			return cred.Secret{}, ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code := p.codes[0]
	p.codes = p.codes[1:]
	return cred.NewSecret(code), nil
}

func (p *person) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

type world struct {
	*Ways
	person *person
	store  cred.Store
	logs   *bytes.Buffer
	deps   Deps
}

func newWorld() *world {
	w := &world{person: &person{}, store: keystore.NewMemory(), logs: &bytes.Buffer{}}
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	w.deps = Deps{Next: w.person, Store: w.store, Log: logrus.NewEntry(log)}
	w.Ways = New(w.deps)
	return w
}

// again is what a new daemon has.
func (w *world) again() { w.Ways = New(w.deps) }

func (w *world) add(t *testing.T, seed string) [2]cred.Secret {
	t.Helper()
	codes, err := w.Add(t.Context(), serial, cred.NewSecret(seed), false)
	if err != nil {
		t.Fatal(err)
	}
	return codes
}

// all is an error's whole tree as text.
func all(err error) (s string) {
	for ; err != nil; err = errors.Unwrap(err) {
		s += err.Error() + cred.HintOf(err)
	}
	return s
}

// broken is a Store that fails.
type broken struct {
	cred.Store
	get, put, list error
}

func (b *broken) Get(ctx context.Context, name string) (cred.Secret, error) {
	if b.get != nil {
		return cred.Secret{}, b.get
	}
	return b.Store.Get(ctx, name)
}

func (b *broken) Put(ctx context.Context, name string, v cred.Secret) error {
	if b.put != nil {
		return b.put
	}
	return b.Store.Put(ctx, name, v)
}

func (b *broken) List(ctx context.Context, prefix string) ([]string, error) {
	if b.list != nil {
		return nil, b.list
	}
	return b.Store.List(ctx, prefix)
}

package access

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// running starts a copy of a small program at path and returns who it is to
// the rules. extra makes it another content.
func running(t *testing.T, path, extra string) peer.Caller {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skipf("%s: needs sleep", t.Name())
	}
	b, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(path) // one that runs can't be written to
	if err := os.WriteFile(path, append(b, extra...), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "600")
	cmd.Args[0] = "sleep" // of a program that is many in one, too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	start, err := peer.StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return peer.Caller{UID: peer.Self(), PID: cmd.Process.Pid, Start: start, Exe: path, Via: peer.ViaTCP}
}

func realDir(t *testing.T) string {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// person answers what say returns; a nil say waits for the context.
type person struct {
	asked atomic.Int32
	mu    sync.Mutex // guards last
	last  cred.Question
	say   func(ctx context.Context) (string, error)
}

func (p *person) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	p.asked.Add(1)
	p.mu.Lock()
	p.last = q
	p.mu.Unlock()
	if p.say == nil {
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
	text, err := p.say(ctx)
	return cred.NewSecret(text), err
}

func says(text string) *person {
	return &person{say: func(context.Context) (string, error) {
		time.Sleep(time.Second) // a person takes a moment
		return text, nil
	}}
}

func wantDenied(t *testing.T, err error) {
	t.Helper()
	var d *Denied
	if !errors.As(err, &d) || !errors.Is(err, cred.ErrDenied) {
		t.Errorf("want a denial, got %v", err)
	}
}

func TestConsentAnswers(t *testing.T) {
	program := filepath.Join(realDir(t), "tool")
	caller := running(t, program, "")
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		confirm := func(c *Consents, p *person) error { return c.Confirm(ctx, caller, "prod", p) }

		c := OpenConsents(newMemory(), nil)
		defer c.Close()
		once := says(cred.ConfirmOnce)
		for range 2 { // each use is asked about
			if err := confirm(c, once); err != nil {
				t.Fatal(err)
			}
		}
		if once.asked.Load() != 2 {
			t.Errorf("once: asked %d times", once.asked.Load())
		}
		q := once.last
		if q.Kind != cred.AskConfirm || q.Profile != "prod" || q.Program != program || len(q.Choices) != 4 || !strings.Contains(q.Text, program) {
			t.Errorf("question is %+v", q)
		}

		hour := says(cred.ConfirmHour)
		if err := confirm(c, hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		if err := confirm(c, hour); err != nil || hour.asked.Load() != 1 {
			t.Errorf("within the hour: %v, asked %d times", err, hour.asked.Load())
		}
		time.Sleep(2 * time.Minute)
		no := says(cred.ConfirmNo)
		wantDenied(t, confirm(c, no))
		wantDenied(t, confirm(c, no)) // cools down
		if no.asked.Load() != 1 {
			t.Errorf("no: asked %d times", no.asked.Load())
		}
		wantDenied(t, c.Confirm(ctx, caller, "prod", says(cred.ConfirmAlways)))
		if err := c.Confirm(ctx, caller, "staging", says(cred.ConfirmOnce)); err != nil {
			t.Errorf("another profile: %v", err)
		}
		time.Sleep(consentCool)
		always := says(cred.ConfirmAlways)
		if err := confirm(c, always); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)
		if err := confirm(c, always); err != nil || always.asked.Load() != 1 {
			t.Errorf("always: %v, asked %d times", err, always.asked.Load())
		}
		var i *cred.InteractionError
		if err := c.Confirm(ctx, caller, "other", says("perhaps")); !errors.As(err, &i) {
			t.Errorf("an answer that is none: %v", err)
		}
	})
}

// A hundred first uses are one question, and one answer for all.
func TestConsentIsOneQuestion(t *testing.T) {
	caller := running(t, filepath.Join(realDir(t), "tool"), "")
	for answer, ok := range map[string]bool{cred.ConfirmOnce: true, cred.ConfirmNo: false} {
		synctest.Test(t, func(t *testing.T) {
			c := OpenConsents(newMemory(), nil)
			defer c.Close()
			p := says(answer)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					err := c.Confirm(t.Context(), caller, "prod", p)
					if ok && err != nil {
						t.Error(err)
					}
					if !ok {
						wantDenied(t, err)
					}
				})
			}
			wg.Wait()
			if p.asked.Load() != 1 {
				t.Errorf("%s: asked %d times", answer, p.asked.Load())
			}
		})
	}
}

// A metadata client waits for a moment only. The question goes on, and its
// answer is for who comes next: once for one.
func TestConsentOutlivesWhoAsked(t *testing.T) {
	caller := running(t, filepath.Join(realDir(t), "tool"), "")
	synctest.Test(t, func(t *testing.T) {
		c := OpenConsents(newMemory(), nil)
		defer c.Close()
		p := says(cred.ConfirmOnce)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
			if err := c.Confirm(ctx, caller, "prod", p); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
		}
		time.Sleep(5 * time.Second)
		if err := c.Confirm(t.Context(), caller, "prod", &person{}); err != nil {
			t.Error(err)
		}
		if p.asked.Load() != 1 {
			t.Errorf("asked %d times", p.asked.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := c.Confirm(ctx, caller, "prod", p); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("once was good twice: %v", err)
		}
		time.Sleep(consentOnce + time.Minute) // it came, and nobody did
		silent := &person{}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Confirm(ctx, caller, "prod", silent); !errors.Is(err, context.DeadlineExceeded) || silent.asked.Load() != 1 {
			t.Errorf("an old once was good: %v", err)
		}
	})
}

func TestConsentWithoutAPerson(t *testing.T) {
	caller := running(t, filepath.Join(realDir(t), "tool"), "")
	synctest.Test(t, func(t *testing.T) {
		c := OpenConsents(newMemory(), nil)
		key, err := c.Key(t.Context(), caller, "prod")
		if err != nil {
			t.Fatal(err)
		}
		nobody := &person{say: func(context.Context) (string, error) {
			return "", &cred.InteractionError{Message: "cannot get credentials for prod: a person must act: nobody is there to answer"}
		}}
		for _, ask := range []cred.Asker{nobody, nil} {
			err := c.Confirm(t.Context(), caller, "prod", ask)
			var i *cred.InteractionError
			if !errors.As(err, &i) || i.Key != key || i.Kind != cred.AskConfirm || i.Hint() != "keyfob answer" || !strings.HasSuffix(i.Error(), "have them: nobody is there to answer") {
				t.Errorf("%v", err)
			}
		}
		// a person comes to answer
		if err := c.Retry(t.Context(), cred.LinkKey{1}, says(cred.ConfirmOnce)); !errors.Is(err, cred.ErrNotFound) {
			t.Errorf("a question that nobody raised: %v", err)
		}
		if err := c.Retry(t.Context(), key, says(cred.ConfirmOnce)); err != nil {
			t.Error(err)
		}
		if err := c.Confirm(t.Context(), caller, "prod", nobody); err != nil {
			t.Errorf("after the answer: %v", err)
		}
		if err := c.Retry(t.Context(), key, says(cred.ConfirmOnce)); !errors.Is(err, cred.ErrNotFound) {
			t.Errorf("answered already: %v", err)
		}

		var wg sync.WaitGroup // the end of the daemon
		wg.Go(func() {
			var i *cred.InteractionError
			if err := c.Confirm(t.Context(), caller, "prod", &person{}); !errors.As(err, &i) {
				t.Error(err)
			}
		})
		synctest.Wait()
		c.Close()
		wg.Wait()
		if err := c.Confirm(t.Context(), caller, "prod", says(cred.ConfirmHour)); err == nil {
			t.Error("a yes after Close")
		}
	})
}

// Who can't be told by program gets nothing, and nobody is bothered.
func TestConsentNeedsAProgram(t *testing.T) {
	caller := running(t, filepath.Join(realDir(t), "tool"), "")
	gone, wrong := caller, caller
	gone.Start++
	wrong.Exe += "2"
	p := says(cred.ConfirmAlways)
	c := OpenConsents(newMemory(), nil)
	defer c.Close()
	for name, caller := range map[string]peer.Caller{
		"nobody": {}, "no program": {UID: "1", Via: peer.ViaTCP}, "no parent": {UID: "1", Via: peer.ViaUnix, PID: caller.PID, Start: caller.Start, Exe: caller.Exe},
		"another process under the number": gone, "another program by now": wrong,
	} {
		if err := c.Confirm(t.Context(), caller, "prod", p); err == nil {
			t.Errorf("%s: allowed", name)
		} else {
			wantDenied(t, err)
		}
	}
	if p.asked.Load() != 0 {
		t.Error("asked")
	}
}

// A program that was replaced asks again, although its path is the same.
func TestConsentIsForTheContent(t *testing.T) {
	program := filepath.Join(realDir(t), "tool")
	store := newMemory()
	c := OpenConsents(store, nil)
	defer c.Close()
	always := &person{say: func(context.Context) (string, error) { return cred.ConfirmAlways, nil }}
	if err := c.Confirm(t.Context(), running(t, program, ""), "prod", always); err != nil {
		t.Fatal(err)
	}
	same := running(t, program, "")
	if err := c.Confirm(t.Context(), same, "prod", always); err != nil || always.asked.Load() != 1 {
		t.Errorf("the same content: %v, asked %d times", err, always.asked.Load())
	}
	no := &person{say: func(context.Context) (string, error) { return cred.ConfirmNo, nil }}
	theirs := same
	theirs.UID = "4242"
	wantDenied(t, c.Confirm(t.Context(), theirs, "prod", no))
	if no.asked.Load() != 1 {
		t.Error("another user's was not asked about")
	}
	wantDenied(t, c.Confirm(t.Context(), running(t, program, "replaced"), "prod", no))
	if no.asked.Load() != 2 {
		t.Error("a replaced program was not asked about")
	}
}

func TestConsentsAreKept(t *testing.T) {
	program := filepath.Join(realDir(t), "tool")
	caller := running(t, program, "")
	ctx := t.Context()
	var logged strings.Builder
	log := logrus.New()
	log.SetOutput(&logged)
	answer := func(text string) *person {
		return &person{say: func(context.Context) (string, error) { return text, nil }}
	}
	store := newMemory()
	c := OpenConsents(store, log.WithField("test", true))
	for profile, text := range map[string]string{"a": cred.ConfirmAlways, "b": cred.ConfirmHour, "c": cred.ConfirmAlways} {
		if err := c.Confirm(ctx, caller, profile, answer(text)); err != nil {
			t.Fatal(err)
		}
	}
	c.Close() // joins what is being written
	if len(store.records) != 2 {
		t.Fatalf("%d records", len(store.records))
	}
	for name, r := range store.records {
		if !strings.HasPrefix(name, "consent/") || len(name) != len("consent/")+64 || !strings.Contains(r.Reveal(), `"version":1`) {
			t.Errorf("%s: %s", name, r.Reveal())
		}
	}
	for _, want := range []string{"answer=always", "answer=hour", "profile=a", program} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log does not say %s: %s", want, logged.String())
		}
	}

	// After a restart: nothing while locked, then what is kept.
	store.locked = true
	c = OpenConsents(store, nil)
	if err := c.Load(ctx); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	refuse := answer(cred.ConfirmNo)
	wantDenied(t, c.Confirm(ctx, caller, "c", refuse))
	// Forget works while locked, and a yes is good although it can't be kept.
	if err := c.Forget(ctx, "c"); err != nil {
		t.Error(err)
	}
	if err := c.Confirm(ctx, caller, "d", answer(cred.ConfirmAlways)); err != nil {
		t.Error(err)
	}
	store.mu.Lock()
	store.locked = false
	store.mu.Unlock()
	if err := c.Load(ctx); err != nil {
		t.Error(err)
	}
	for profile, ok := range map[string]bool{"a": true, "b": false, "c": false, "d": true} {
		err := c.Confirm(ctx, caller, profile, answer(cred.ConfirmNo))
		if (err == nil) != ok {
			t.Errorf("%s: %v", profile, err)
		}
	}
	c.Close()
	if len(store.records) != 2 { // a and d
		t.Errorf("%d records", len(store.records))
	}

	// A record that was swapped, damaged or is of another version is none.
	for name, r := range store.records {
		var stored storedConsent
		if err := json.Unmarshal([]byte(r.Reveal()), &stored); err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string]func(*storedConsent){
			"profile": func(s *storedConsent) { s.Profile = "prod" }, "program": func(s *storedConsent) { s.Program = "/bin/x" },
			"user": func(s *storedConsent) { s.UID = "7" }, "version": func(s *storedConsent) { s.Version = 2 }, "hash": func(s *storedConsent) { s.SHA256 = "00" },
		} {
			bad := stored
			change(&bad)
			b, _ := json.Marshal(bad)
			one := newMemory()
			one.records[name] = cred.SecretBytes(b)
			c := OpenConsents(one, nil)
			if err := c.Load(ctx); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("another %s: %v", what, err)
			}
			if len(c.yes) != 0 {
				t.Errorf("another %s: counted", what)
			}
			c.Close()
		}
	}
}

// A name must not do anything to the terminal it is shown on.
func TestConsentQuestionIsPrintable(t *testing.T) {
	p := &person{say: func(context.Context) (string, error) { return cred.ConfirmNo, nil }}
	c := OpenConsents(newMemory(), nil)
	defer c.Close()
	wantDenied(t, c.Confirm(t.Context(), running(t, filepath.Join(realDir(t), "a\x1b[2J\nb"), ""), "prod", p))
	if strings.ContainsAny(p.last.Text+p.last.Program, "\x1b\n") {
		t.Errorf("%q", p.last)
	}
}

func TestConfirmAllocatesNothingWhereAYesHolds(t *testing.T) {
	_, c := loopback(t)
	caller, err := peer.Of(c)
	if err != nil {
		t.Skipf("%s: %v", t.Name(), err)
	}
	consents := OpenConsents(newMemory(), nil)
	defer consents.Close()
	if err := consents.Confirm(t.Context(), caller, "prod", &person{say: func(context.Context) (string, error) { return cred.ConfirmHour, nil }}); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := consents.Confirm(context.Background(), caller, "prod", nil); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

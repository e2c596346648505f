//go:build unix

package mfa

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/source/command"
)

// programs lets w run real ones; PATH begins with bin.
func (w *world) programs(bin string) {
	r := command.New(command.Config{Environ: []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=/"}, Timeout: 10 * time.Second, Log: w.deps.Log})
	w.deps.Run = func(ctx context.Context, name, line string) (cred.Secret, error) {
		return r.Run(ctx, command.Program{Name: name, Line: line})
	}
	w.deps.Args = func(ctx context.Context, name string, args ...string) (cred.Secret, error) {
		return r.Run(ctx, command.Program{Name: name, Args: args})
	}
	w.again()
}

// clean looks for codes in the log and in an error.
func (w *world) clean(t *testing.T, err error, codes ...string) {
	t.Helper()
	for _, c := range codes {
		if strings.Contains(w.logs.String(), c) || strings.Contains(all(err), c) {
			t.Errorf("%s is shown: %v, %s", c, err, w.logs)
		}
	}
}

func TestOtherQuestionsPass(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.programs(t.TempDir())
	w.add(t, seedText)
	for _, kind := range []string{cred.AskBrowser, cred.AskConfirm, cred.AskSAML, cred.AskChoice, cred.AskCode, cred.AskDevice} {
		w.person.codes = []string{"yes"}
		q := cred.Question{Kind: kind, Serial: serial, Process: "echo 123456"}
		c, err := w.Ask(t.Context(), cred.LinkKey{7}, q)
		if err != nil || c.Reveal() != "yes" || w.person.keys[len(w.person.keys)-1] != (cred.LinkKey{7}) || w.person.asked[len(w.person.asked)-1].Kind != kind {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestProcessIsAskedFirst(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.programs(t.TempDir())
	w.add(t, seedText)
	q := question
	q.Process = "printf ' 314159\\n'; echo code 314159 >&2"
	c, err := w.Ask(t.Context(), cred.LinkKey{1}, q)
	if err != nil || c.Reveal() != "314159" || w.person.times() != 0 {
		t.Errorf("%q %v", c.Reveal(), err)
	}
	w.clean(t, err, "314159")
	if !w.Unattended("any", "x") {
		t.Error("a process needs a person")
	}
	w.deps.Run = nil
	w.again()
	if w.Unattended("any", "x") {
		t.Error("nobody runs it")
	}
}

func TestProcessThatFailsLeavesItToAPerson(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.programs(t.TempDir())
	for line, want := range map[string]string{
		"echo 271828 271828; exit 2": "mfa_process of profile dev ended with exit code 2",
		"/not/there":                 "the shell found no such program",
		"echo 2718281":               "mfa_process of profile dev printed something else than six digits",
		"echo 'code: 271828'":        "printed something else than six digits",
		"true":                       "printed something else than six digits",
	} {
		q := question
		q.Process = line
		_, err := w.Ask(t.Context(), cred.LinkKey{1}, q)
		var ie *cred.InteractionError
		if !errors.As(err, &ie) || ie.Key != (cred.LinkKey{1}) || !strings.Contains(err.Error(), "nobody is there to answer (") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
		w.person.codes = []string{"222222"}
		c, err := w.Ask(t.Context(), cred.LinkKey{1}, q)
		if err != nil || c.Reveal() != "222222" {
			t.Errorf("%s: %v", line, err)
		}
		w.clean(t, err, "271828")
	}
	// With a seed, nobody need be asked.
	r, _ := encode(record{Version: 1, Serial: serial, Seed: seedText})
	if err := w.store.Put(t.Context(), recordName(serial), r); err != nil {
		t.Fatal(err)
	}
	before := w.person.times()
	q := question
	q.Process = "exit 1"
	if c, err := w.Ask(t.Context(), cred.LinkKey{1}, q); err != nil || c.Len() != 6 || w.person.times() != before {
		t.Errorf("%v", err)
	}
	// Who gives up is not asked.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	q.Process = "sleep 1000"
	if _, err := w.Ask(ctx, cred.LinkKey{1}, q); !errors.Is(err, context.Canceled) || w.person.times() != before {
		t.Errorf("%v", err)
	}
}

// ykman writes a fake one that notes its calls.
func ykman(t *testing.T, list, code string) (bin string, calls func() string) {
	t.Helper()
	bin = t.TempDir()
	notes := filepath.Join(bin, "notes")
	script := "#!/bin/sh\nprintf '%s|' \"$@\" >>" + notes + "\necho >>" + notes + `
case "$*" in
"oath accounts list") ` + list + `;;
"oath accounts code --single "*) ` + code + `;;
*) exit 2;;
esac
`
	if err := os.WriteFile(filepath.Join(bin, "ykman"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return bin, func() string {
		b, _ := os.ReadFile(notes)
		return string(b)
	}
}

func TestYubiKeyBesideAPerson(t *testing.T) {
	t.Parallel()
	bin, calls := ykman(t, "printf 'GitHub:alice\\nAmazon Web Services:alice@corp\\n'", `echo 'Touch your YubiKey...' >&2; sleep 2; echo 161803`)
	w := newWorld()
	touched := make(chan cred.Question, 1)
	w.deps.Touch = func(ctx context.Context, q cred.Question) {
		if ctx.Err() == nil {
			touched <- q
		}
	}
	w.programs(bin)
	w.person.codes, w.person.wait = []string{"222222"}, make(chan struct{})
	c, err := w.Ask(t.Context(), cred.LinkKey{1}, question)
	if err != nil || c.Reveal() != "161803" {
		t.Fatalf("%q %v", c.Reveal(), err)
	}
	if want := "oath|accounts|list|\noath|accounts|code|--single|Amazon Web Services:alice@corp|\n"; calls() != want {
		t.Errorf("%q", calls())
	}
	select {
	case q := <-touched:
		if q.Profile != "dev" {
			t.Errorf("%+v", q)
		}
	default:
		t.Error("nobody was told to touch it")
	}
	w.clean(t, nil, "161803")
	if w.Unattended(serial, "") {
		t.Error("a touch is a person's")
	}

	// Who types is not kept waiting for the key.
	w.person.codes = []string{"222222"}
	time.AfterFunc(500*time.Millisecond, func() { close(w.person.wait) })
	began := time.Now()
	c, err = w.Ask(t.Context(), cred.LinkKey{1}, question)
	if err != nil || c.Reveal() != "222222" || time.Since(began) > 1800*time.Millisecond {
		t.Errorf("%q %v after %s", c.Reveal(), err, time.Since(began))
	}
}

func TestYubiKeyIsLeftAloneWhereNobodyIs(t *testing.T) {
	t.Parallel()
	bin, calls := ykman(t, "echo "+serial, "echo 161803")
	w := newWorld()
	w.person.late = 50 * time.Millisecond
	w.programs(bin)
	_, err := w.Ask(t.Context(), cred.LinkKey{1}, question)
	var ie *cred.InteractionError
	if !errors.As(err, &ie) || calls() != "" {
		t.Errorf("%v %q", err, calls())
	}
}

func TestYubiKeyThatIsNoHelp(t *testing.T) {
	t.Parallel()
	for name, fake := range map[string][2]string{
		"none inserted": {"echo no device >&2; exit 1", "exit 1"},
		"no account":    {"echo GitHub:alice", "echo 161803"},
		"two accounts":  {"echo AWS:alice@a; echo AWS:alice@b", "echo 161803"},
		"not touched":   {"echo " + serial, "exit 1"},
		"not a code":    {"echo " + serial, "echo '" + serial + "  161803'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin, _ := ykman(t, fake[0], fake[1])
			w := newWorld()
			w.programs(bin)
			w.person.codes, w.person.wait = []string{"222222"}, make(chan struct{})
			time.AfterFunc(400*time.Millisecond, func() { close(w.person.wait) })
			c, err := w.Ask(t.Context(), cred.LinkKey{1}, question)
			if err != nil || c.Reveal() != "222222" {
				t.Errorf("%q %v", c.Reveal(), err)
			}
			w.clean(t, err, "161803", "222222")
		})
	}
}

func TestAccountsOfADevice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ list, want string }{
		{serial, serial},
		{"AWS:" + serial, "AWS:" + serial},
		{"Amazon Web Services:alice@x\n" + serial, serial},
		{"Amazon Web Services:alice\nAWS:bob", "Amazon Web Services:alice"},
		{"amazon:alice@111122223333", "amazon:alice@111122223333"},
		{"GitHub:alice\nalice", ""},
		{"AWS:alice2\nAWS:alic", ""},
		{"AWS:alice\nAmazon:alice", ""},
		{serial + "2", ""},
		{"-x:" + serial, ""},
		{"", ""},
	} {
		if got := accountOf(strings.Split(c.list, "\n"), serial); got != c.want {
			t.Errorf("%q: %q, want %q", c.list, got, c.want)
		}
	}
}

func TestNextsErrorsAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		_, err := w.Ask(t.Context(), cred.LinkKey{1}, question)
		if err == nil || err.Error() != "cannot ask for the code: nobody is there to answer" {
			t.Errorf("%v", err)
		}
		w.deps.Log.Logger.SetLevel(logrus.PanicLevel)
		w.person.codes, w.person.wait = []string{"222222"}, make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Ask(ctx, cred.LinkKey{1}, question); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

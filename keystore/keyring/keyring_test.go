package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	ring "github.com/99designs/keyring"

	"keyfob/keystore/internal/wire"
)

const goodKey = "vault-00112233445566778899aabbccddeeff"

// TestRefuses: the helper touches keyfob's own items alone, on the backends
// of its list, and computes no key that costs all memory.
func TestRefuses(t *testing.T) {
	for name, req := range map[string]wire.Request{
		"another program's item": {Op: wire.OpGet, Backend: "keyctl", Key: "login"},
		"an item above":          {Op: wire.OpGet, Backend: "pass", Key: "../vault-00112233445566778899aabbccddeeff"},
		"a key and more":         {Op: wire.OpGet, Backend: "pass", Key: goodKey + "/x"},
		"a line more":            {Op: wire.OpGet, Backend: "pass", Key: goodKey + "\n"},
		"no key":                 {Op: wire.OpGet, Backend: "keyctl"},
		"the file backend":       {Op: wire.OpGet, Backend: "file", Key: goodKey},
		"no backend":             {Op: wire.OpGet, Key: goodKey},
		"no operation":           {Key: goodKey, Backend: "keyctl"},
		"a list":                 {Op: "list", Key: goodKey, Backend: "keyctl"},
		"no parameters":          {Op: wire.OpDerive, Passphrase: []byte("x")},
		"no passphrase":          {Op: wire.OpDerive, KDF: &wire.KDF{Time: 1, Memory: 8192, Threads: 1, Salt: make([]byte, 16)}},
		"too much memory":        {Op: wire.OpDerive, Passphrase: []byte("x"), KDF: &wire.KDF{Time: 1, Memory: 4 << 20, Threads: 1, Salt: make([]byte, 16)}},
		"no salt":                {Op: wire.OpDerive, Passphrase: []byte("x"), KDF: &wire.KDF{Time: 1, Memory: 8192, Threads: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			req.Version = wire.Version
			if r := do(&req); r.Code != wire.CodeRefused || r.Message == "" || len(r.Value) != 0 {
				t.Errorf("do: %+v", r)
			}
		})
	}
	if r := do(&wire.Request{Version: 2, Op: wire.OpGet, Backend: "keyctl", Key: goodKey}); r.Code != wire.CodeRefused {
		t.Errorf("another version: %+v", r)
	}
}

func TestDerive(t *testing.T) {
	req := func(pass string, salt byte) *wire.Request {
		return &wire.Request{Version: wire.Version, Op: wire.OpDerive, Passphrase: []byte(pass),
			KDF: &wire.KDF{Time: 1, Memory: 8192, Threads: 2, Salt: bytes.Repeat([]byte{salt}, 16)}}
	}
	a, b, c, d := do(req("one", 1)), do(req("one", 1)), do(req("two", 1)), do(req("one", 2))
	if a.Code != wire.CodeOK || len(a.Value) != keyLength || !bytes.Equal(a.Value, b.Value) {
		t.Errorf("the same passphrase: %s, %d bytes", a.Code, len(a.Value))
	}
	if bytes.Equal(a.Value, c.Value) || bytes.Equal(a.Value, d.Value) {
		t.Error("another passphrase or salt gives the same key")
	}
}

// TestOneBackend: the library is never left a choice.
func TestOneBackend(t *testing.T) {
	for _, b := range []string{"keychain", "wincred", "secret-service", "kwallet", "keyctl", "pass"} {
		cfg, ok := config(b, "login")
		if !ok || len(cfg.AllowedBackends) != 1 || string(cfg.AllowedBackends[0]) != b {
			t.Errorf("%s: %+v, %v", b, cfg.AllowedBackends, ok)
		}
	}
	for _, b := range []string{"file", "", "passphrase", "auto"} {
		if _, ok := config(b, ""); ok {
			t.Errorf("%q is taken for a keyring", b)
		}
	}
}

// osStatus is like the error type of the macOS keychain library.
type osStatus int

func (s osStatus) Error() string { return fmt.Sprint("status ", int(s)) }

func TestClassify(t *testing.T) {
	failed := exec.Command("false").Run()
	for _, c := range []struct {
		backend   string
		err       error
		dismissed bool
		want      string
	}{
		{"secret-service", ring.ErrKeyNotFound, false, wire.CodeNotFound},
		{"keychain", ring.ErrNoAvailImpl, false, wire.CodeAbsent},
		{"secret-service", errors.New("Cannot get secret of a locked object"), false, wire.CodeLocked},
		{"secret-service", errors.New("Cannot get secret of a locked object"), true, wire.CodeDismissed},
		{"secret-service", errors.New(`Object does not exist at path "/"`), false, wire.CodeLocked},
		{"secret-service", errors.New(`Object does not exist at path "/"`), true, wire.CodeDismissed},
		{"secret-service", errors.New("dbus: connection closed by user"), false, wire.CodeAbsent},
		{"secret-service", errors.New("something else"), false, wire.CodeFailed},
		{"keyctl", syscall.ENOSYS, false, wire.CodeAbsent},
		{"keyctl", fmt.Errorf("opening: %w", syscall.EACCES), false, wire.CodeLocked},
		{"keyctl", syscall.EDQUOT, false, wire.CodeFailed},
		{"pass", failed, false, wire.CodeLocked},
		{"pass", errors.New("something else"), false, wire.CodeFailed},
		{"keychain", osStatus(-25308), false, wire.CodeLocked},
		{"keychain", fmt.Errorf("query: %w", osStatus(-128)), false, wire.CodeDismissed},
		{"keychain", osStatus(-25293), false, wire.CodeDismissed},
		{"keychain", osStatus(-25307), false, wire.CodeAbsent},
		{"keychain", osStatus(-50), false, wire.CodeFailed},
	} {
		if code, _ := classify(c.err, c.backend, c.dismissed); code != c.want {
			t.Errorf("%s: %v (dismissed %v) is %q, want %q", c.backend, c.err, c.dismissed, code, c.want)
		}
	}
	if _, m := classify(errors.New("a\nb  "+strings.Repeat("x", 1000)), "kwallet", false); strings.Contains(m, "\n") || len(m) > 310 {
		t.Errorf("message: %q", m)
	}
}

// TestServe: one request, one answer; and an end when the other end goes
// away.
func TestServe(t *testing.T) {
	var first, out bytes.Buffer
	if err := wire.Write(&first, wire.Request{Version: wire.Version, Op: "none"}); err != nil {
		t.Fatal(err)
	}
	// The channel stays open behind the request.
	r, w := io.Pipe()
	defer w.Close()
	if code := serve(io.MultiReader(&first, r), &out); code != 0 {
		t.Errorf("serve: %d", code)
	}
	var resp wire.Response
	if err := wire.Read(&out, &resp); err != nil || resp.Code != wire.CodeRefused || resp.Version != wire.Version {
		t.Errorf("answer: %+v, %v", resp, err)
	}
	for name, line := range map[string]string{"nothing": "", "half": `{"op"`, "garbage": "garbage\n", "too long": strings.Repeat(" ", wire.MaxLine+1) + "\n"} {
		out.Reset()
		if code := serve(strings.NewReader(line), &out); code != 1 || out.Len() != 0 {
			t.Errorf("%s: %d, %q", name, code, out.String())
		}
	}
	// A long operation whose asker is gone.
	var in bytes.Buffer
	if err := wire.Write(&in, wire.Request{Version: wire.Version, Op: wire.OpDerive, Passphrase: []byte("x"),
		KDF: &wire.KDF{Time: 4, Memory: 64 << 10, Threads: 1, Salt: make([]byte, 16)}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if code := serve(&in, &out); code != 1 || out.Len() != 0 {
		t.Errorf("with nobody there: %d, %q", code, out.String())
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("with nobody there it took %v", d)
	}
}

// TestMain keeps the library's init, which has run, and the tests off the
// real session's bus.
func TestMain(m *testing.M) {
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "unix:path=/dev/null" {
		// The library has dialled by now: start again without a bus.
		exe, err := os.Executable()
		if err != nil {
			panic(err)
		}
		cmd := exec.Command(exe, os.Args[1:]...)
		cmd.Env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err = cmd.Run()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			os.Exit(exit.ExitCode())
		case err != nil:
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

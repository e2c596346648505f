package keystore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"keyfob/internal/cred"
	"keyfob/keystore/internal/wire"
)

// HelperName is the file name of the helper program, without ".exe".
const HelperName = "keyfob-keyring"

// answerGrace is how long a helper that has answered may take to end before
// it is killed.
const answerGrace = 2 * time.Second

// helper runs keyfob-keyring.
type helper struct {
	path    string        // Config.Helper
	timeout time.Duration // of one unlocking
}

// find returns the program to run: the one that the configuration names,
// else the one beside the running program's own file, else the one on PATH.
// Errors: ErrHelper.
func (h helper) find() (string, error) {
	name := HelperName
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if h.path != "" {
		return h.path, nil
	}
	beside := ""
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		beside = filepath.Dir(exe)
		if p, err := exec.LookPath(filepath.Join(beside, name)); err == nil {
			return p, nil
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return "", cred.WithHint(fmt.Errorf("%w: it is neither in %s nor on PATH", ErrHelper, beside), "install "+name+" beside keyfobd")
}

// call runs one operation. When ctx ends first, the helper and whatever it
// started are killed. Errors: ErrTimeout, ErrHelper, the context's; a
// keyring's refusal is in the Response.
func (h helper) call(ctx context.Context, req wire.Request) (*wire.Response, error) {
	path, err := h.find()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, timeoutCause(ctx, err)
	}
	req.Version = wire.Version
	// The fixed arguments and the environment hold no secret.
	cmd := exec.Command(path)
	cmd.Env = helperEnv(req.Backend, os.Environ(), runtime.GOOS, os.Getuid())
	cmd.Dir = rootDir()
	resp, err := exchange(ctx, cmd, &req)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, timeoutCause(ctx, ctx.Err())
	case err != nil:
		return nil, cred.WithHint(fmt.Errorf("%w: %s: %w", ErrHelper, path, err), "reinstall keyfob, so that keyfobd and "+HelperName+" are of one version")
	case resp.Version != wire.Version:
		return nil, cred.WithHint(fmt.Errorf("%w: %s speaks version %d of its protocol, not %d", ErrHelper, path, resp.Version, wire.Version),
			"reinstall keyfob, so that keyfobd and "+HelperName+" are of one version")
	}
	return resp, nil
}

// timeoutCause turns the end of an unlocking's own time into ErrTimeout.
func timeoutCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); ctx.Err() != nil && errors.Is(cause, ErrTimeout) {
		return ErrTimeout
	}
	return err
}

// rootDir is the helper's working directory: one that can always be there.
func rootDir() string {
	if runtime.GOOS == "windows" {
		return os.Getenv("SystemRoot")
	}
	return "/"
}

// helperEnv is the helper's environment: what keyrings, pass and pinentry
// need, and nothing that may hold a secret. Where the backend needs D-Bus it
// always has an address, and where it does not it has one that fails at
// once: without an address the keyring library would start a bus of its own
// and leave it behind, and it dials before it knows whether it needs one.
func helperEnv(backend string, environ []string, goos string, uid int) []string {
	var env []string
	get := map[string]string{}
	for _, kv := range environ {
		k, val, _ := strings.Cut(kv, "=")
		if goos == "windows" {
			k = strings.ToUpper(k)
		}
		get[k] = val
		switch {
		case k == "DBUS_SESSION_BUS_ADDRESS", k == "DISABLE_KWALLET":
		case k == "HOME", k == "PATH", k == "USER", k == "LOGNAME", k == "LANG", k == "LANGUAGE", k == "TZ", k == "TMPDIR",
			k == "DISPLAY", k == "WAYLAND_DISPLAY", k == "XAUTHORITY", k == "DESKTOP_SESSION", k == "GNOME_KEYRING_CONTROL",
			k == "GNUPGHOME", k == "GPG_TTY", strings.HasPrefix(k, "PASSWORD_STORE_"), strings.HasPrefix(k, "XDG_"),
			strings.HasPrefix(k, "LC_"):
			env = append(env, kv)
		case goos == "windows" && (k == "SYSTEMROOT" || k == "USERPROFILE" || k == "USERNAME" || k == "APPDATA" || k == "LOCALAPPDATA" ||
			k == "TEMP" || k == "TMP" || k == "PROGRAMDATA"):
			env = append(env, kv)
		}
	}
	env = append(env, "GOTRACEBACK=none") // a crash prints no memory
	if goos != "linux" {
		return env
	}
	bus := "unix:path=/dev/null"
	switch backend {
	case BackendSecretService, BackendKWallet:
		if a := get["DBUS_SESSION_BUS_ADDRESS"]; a != "" && a != "autolaunch:" {
			bus = a
			break
		}
		for _, dir := range []string{get["XDG_RUNTIME_DIR"], fmt.Sprintf("/run/user/%d", uid)} {
			if dir == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, "bus")); err == nil {
				bus = "unix:path=" + filepath.Join(dir, "bus")
				break
			}
		}
	}
	env = append(env, "DBUS_SESSION_BUS_ADDRESS="+bus)
	if backend != BackendKWallet {
		env = append(env, "DISABLE_KWALLET=1")
	}
	return env
}

// deriveKey has the helper compute Argon2id.
func (v *Vault) deriveKey(ctx context.Context, secret cred.Secret, kdf *wire.KDF) ([]byte, error) {
	pass := secret.AppendReveal(nil)
	defer clear(pass)
	resp, err := v.helper.call(ctx, wire.Request{Op: wire.OpDerive, Passphrase: pass, KDF: kdf})
	if err != nil {
		return nil, err
	}
	if err := refusal(resp); err != nil {
		return nil, err
	}
	if len(resp.Value) != masterSize {
		return nil, fmt.Errorf("%w: it gave a key of %d bytes", ErrHelper, len(resp.Value))
	}
	return resp.Value, nil
}

// itemKey names the vault's item in the keyring.
func (v *Vault) itemKey() string { return "vault-" + v.id.String() }

// keyringGet fetches the master key, and tells in which collection it was.
// Errors: ErrKeyMissing and the other refusals of a keyring.
func (v *Vault) keyringGet(ctx context.Context, backend, collection string) (master []byte, in string, err error) {
	resp, err := v.helper.call(ctx, wire.Request{Op: wire.OpGet, Backend: backend, Key: v.itemKey(), Collection: collection})
	if err != nil {
		return nil, "", err
	}
	if err := refusal(resp); err != nil {
		return nil, "", err
	}
	defer clear(resp.Value)
	master, err = decodeItem(resp.Value)
	return master, resp.Collection, err
}

// keyringSet has the keyring keep the master key and returns the collection
// that holds it.
func (v *Vault) keyringSet(ctx context.Context, backend string, master []byte) (collection string, err error) {
	item := encodeItem(master)
	defer clear(item)
	resp, err := v.helper.call(ctx, wire.Request{Op: wire.OpSet, Backend: backend, Key: v.itemKey(), Value: item})
	if err != nil {
		return "", err
	}
	return resp.Collection, refusal(resp)
}

// refusal makes an error of a response that is not "ok".
func refusal(r *wire.Response) error {
	var kind error
	switch r.Code {
	case wire.CodeOK:
		return nil
	case wire.CodeNotFound:
		kind = ErrKeyMissing
	case wire.CodeAbsent:
		kind = ErrNoKeyring
	case wire.CodeLocked:
		kind = ErrKeyringLocked
	case wire.CodeDismissed:
		kind = ErrDismissed
	case wire.CodeRefused:
		kind = ErrHelper
	default:
		if r.Message == "" {
			return errors.New("the keyring failed")
		}
		return errors.New(r.Message)
	}
	if r.Message == "" {
		return kind
	}
	return fmt.Errorf("%w (%s)", kind, r.Message)
}

// explain says what failed and what to do. made tells that the vault has a
// key, so that another backend is no way out.
func (v *Vault) explain(err error, backend string, made bool) error {
	what := "keep the vault's key in " + backend
	if made {
		what = "get the vault's key from " + backend
	}
	if backend == BackendPassphrase {
		what = "unlock the vault with a passphrase"
	}
	hint := ""
	switch {
	case errors.Is(err, ErrTimeout):
		err = fmt.Errorf("cannot %s: %w (%s)", what, err, v.helper.timeout)
		hint = "see whether a prompt of the keyring waits for an answer, then keyfob unlock"
		if backend == BackendPassphrase {
			hint = "keyfob unlock"
		}
		return cred.WithHint(err, hint)
	case errors.Is(err, ErrNoKeyring) && made:
		hint = "start the keyring that the vault was made with, then keyfob unlock; or with a recovery key: keyfob unlock --recovery"
	case errors.Is(err, ErrNoKeyring):
		hint = "start the keyring, or set keystore.backend = \"passphrase\""
	case errors.Is(err, ErrKeyringLocked):
		hint = "unlock the keyring, then keyfob unlock"
	case errors.Is(err, ErrDismissed):
		hint = "keyfob unlock asks again"
	case errors.Is(err, ErrKeyMissing) && backend == BackendKeyctl:
		hint = "keyctl forgets at reboot: keyfob unlock --recovery, or move " + v.dir + " away and add the keys again"
	case errors.Is(err, ErrKeyMissing):
		hint = "unlock or restore the keyring that holds it, then keyfob unlock; or with a recovery key: keyfob unlock --recovery"
	default:
		hint = cred.HintOf(err)
	}
	err = fmt.Errorf("cannot %s: %w", what, err)
	if hint == "" {
		return err
	}
	return cred.WithHint(err, hint)
}

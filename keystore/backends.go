package keystore

import (
	"fmt"
	"runtime"
	"strings"

	"keyfob/internal/cred"
)

// The backends: who holds the master key.
const (
	BackendAuto          = "auto" // the platform's keyring
	BackendKeychain      = "keychain"
	BackendWinCred       = "wincred"
	BackendSecretService = "secret-service"
	BackendKWallet       = "kwallet"
	BackendKeyctl        = "keyctl"
	BackendPass          = "pass"
	BackendPassphrase    = "passphrase"
)

// platformsOf tells on which systems a backend exists.
func platformsOf(backend string) (goos []string, known bool) {
	switch backend {
	case BackendKeychain:
		return []string{"darwin"}, true
	case BackendWinCred:
		return []string{"windows"}, true
	case BackendSecretService, BackendKWallet, BackendKeyctl:
		return []string{"linux"}, true
	case BackendPass:
		return []string{"linux", "darwin"}, true
	case BackendPassphrase:
		return []string{"linux", "darwin", "windows"}, true
	}
	return nil, false
}

// concreteBackend resolves "auto" to the platform's keyring, and that one
// alone: where it is missing, unlocking fails rather than fall to a weaker
// one. Errors: ErrBackend.
func concreteBackend(backend, goos string) (string, error) {
	if backend == "" || backend == BackendAuto {
		switch goos {
		case "darwin":
			return BackendKeychain, nil
		case "windows":
			return BackendWinCred, nil
		case "linux":
			return BackendSecretService, nil
		}
		return "", cred.WithHint(fmt.Errorf("cannot choose a keystore: %w on %s: there is no platform keyring", ErrBackend, goos),
			"keystore.backend = \"passphrase\"")
	}
	on, known := platformsOf(backend)
	if !known {
		return "", cred.WithHint(fmt.Errorf("cannot use keystore %q: %w: there is none of that name", backend, ErrBackend),
			"one of auto, keychain, wincred, secret-service, kwallet, keyctl, pass, passphrase")
	}
	for _, g := range on {
		if g == goos {
			return backend, nil
		}
	}
	return "", fmt.Errorf("cannot use keystore %s: %w: it exists on %s only", backend, ErrBackend, strings.Join(on, ", "))
}

// resolveBackend says which backend serves a vault: the one that it was made
// with, else the one that the settings name. Errors: ErrBackend.
func resolveBackend(setting, made, dir string) (string, error) {
	if made == "" {
		return concreteBackend(setting, runtime.GOOS)
	}
	if setting != "" && setting != BackendAuto && setting != made {
		return "", cred.WithHint(fmt.Errorf("cannot open the vault %s with keystore %s: %w: the vault was made with %s", dir, setting, ErrBackend, made),
			fmt.Sprintf("set keystore.backend to %q or \"auto\", or use another data directory", made))
	}
	return concreteBackend(made, runtime.GOOS)
}

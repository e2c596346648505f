package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"keyfob/internal/settings"
	"keyfob/keystore"
	"keyfob/profiles"
)

// validate checks the settings as run would take them, and what they name.
// What only a running daemon's answers will show is a warning: it starts
// whatever the AWS files hold.
func validate(s *settings.Settings, flags settings.Flags, environ []string, w io.Writer) error {
	env := environment(environ)
	c, err := newConfig(s, flags, func(name string) string { return env[name] }, func(string) {})
	if err != nil {
		return err
	}
	if len(c.unjudged) > 0 {
		return c.unjudged[0]
	}
	set := loadProfiles(c, env, vaultNames(s))
	if err := set.Err(); err != nil {
		fmt.Fprintln(w, "warning: "+oneText(err.Error()))
	}
	for i := range c.endpoints {
		e := &c.endpoints[i]
		for _, name := range e.profiles() {
			if !set.Has(name) {
				fmt.Fprintf(w, "warning: the endpoint %s serves the profile %s, which is in no file and not in the vault\n", e.Listen, name)
			}
		}
		if f := e.Metadata.UserDataFile; f != "" {
			if _, err := os.Stat(f); err != nil {
				fmt.Fprintf(w, "warning: the endpoint %s: user_data_file: %v\n", e.Listen, err)
			}
		}
	}
	fmt.Fprintln(w, "ok")
	return nil
}

// vaultNames lists the profiles with keys in the vault, without making one.
func vaultNames(s *settings.Settings) map[string]profiles.VaultKey {
	keys := map[string]profiles.VaultKey{}
	dir := filepath.Join(s.DataDir, "vault")
	if _, err := os.Stat(filepath.Join(dir, "vault.json")); err != nil {
		return keys
	}
	v, err := keystore.Open(keystore.Config{Dir: dir, Backend: s.Keystore})
	if err != nil {
		return keys
	}
	defer v.Close()
	names, err := v.List(context.Background(), keyRecords)
	if err != nil {
		return keys
	}
	for _, name := range names {
		keys[strings.TrimPrefix(name, keyRecords)] = profiles.VaultKey{}
	}
	return keys
}

package settings

import (
	"os"
	"path/filepath"
	"runtime"
)

// Machine is what a system daemon's administrator allows. It says nothing
// about a person's own daemon.
type Machine struct {
	// AdminUsers and AdminGroups are names or ids of those who may do with
	// the daemon what concerns all its users, besides root and its own user.
	AdminUsers, AdminGroups []string
	// AllowProcesses lets profiles run programs: credential_process,
	// mfa_process, saml_process, ykman.
	AllowProcesses bool
	// AllowSignIns lets profiles have a person's sign-in as their source.
	AllowSignIns bool
}

func (s *Settings) chooseMachine(d *decider) {
	f := &d.file.System
	s.Machine = Machine{AdminUsers: f.AdminUsers, AdminGroups: f.AdminGroups,
		AllowProcesses: d.yes("KEYFOB_ALLOW_PROCESSES", f.AllowProcesses),
		AllowSignIns:   d.yes("KEYFOB_ALLOW_SIGN_INS", f.AllowSignIns)}
	for name, list := range map[string][]string{"admin_users": f.AdminUsers, "admin_groups": f.AdminGroups} {
		for i, entry := range list {
			if entry == "" {
				d.wrong(element("system."+name, i), "a name or an id", "an element of %s is empty", name)
			}
		}
	}
}

// usualBackend is the keystore where none is named. No keyring of a desktop
// is there for a machine's daemon.
func (s *Settings) usualBackend() string {
	if s.System && runtime.GOOS != "windows" {
		return "passphrase"
	}
	return "auto"
}

// credentialNames are the names under which systemd hands the passphrase over
// (systemd.exec(5), LoadCredentialEncrypted=).
var credentialNames = [...]string{"keyfob.passphrase", "passphrase"}

// handedOver is the file of the passphrase that the service manager hands to
// a system daemon, "" for none.
func (s *Settings) handedOver(env func(string) string) string {
	dir := env("CREDENTIALS_DIRECTORY")
	if !s.System || !filepath.IsAbs(dir) {
		return ""
	}
	for _, name := range credentialNames {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

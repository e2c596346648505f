package profiles

import (
	"maps"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Set is everything the files, the environment and the vault say, as read by
// one Load. It never changes and is safe for concurrent use.
type Set struct {
	home  string
	path  string   // PATH, for a credential_process without a slash
	files [3]*file // by precedence: keyfob's, credentials, config
	env   environment
	vault map[string]VaultKey
	self  []os.FileInfo
}

// FileState says how one of the three files was read.
type FileState struct {
	Kind   OriginKind // FromKeyfob, FromCredentials, FromConfig
	Path   string     // absolute, "" where none is configured
	Exists bool       // a missing file is no error
	Err    *Error     // the first line that is no grammar, or why it can't be read
}

// Load reads the three files. It never fails: what is wrong with a file
// belongs to the answers of the profiles it concerns (Profile.Err, Set.Err).
// A path that is not absolute is relative to the working directory; `~/` is
// in.Home.
func Load(in Input) *Set {
	s := &Set{
		home:  in.Home,
		path:  in.Env["PATH"],
		env:   readEnvironment(in.Env),
		vault: maps.Clone(in.Vault),
	}
	s.files = [3]*file{
		readFile(FromKeyfob, s.filePath(in.KeyfobFile)),
		readFile(FromCredentials, s.filePath(in.CredentialsFile)),
		readFile(FromConfig, s.filePath(in.ConfigFile)),
	}
	for _, path := range in.Self {
		if info, err := os.Stat(path); err == nil {
			s.self = append(s.self, info)
		}
	}
	return s
}

// filePath makes a path absolute, as it will be opened and shown.
func (s *Set) filePath(path string) string {
	if path == "" {
		return ""
	}
	path = s.expandHome(path)
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// expandHome replaces a leading `~/`.
func (s *Set) expandHome(path string) string {
	if s.home == "" {
		return path
	}
	if path == "~" {
		return s.home
	}
	if strings.HasPrefix(path, "~/") || strings.HasPrefix(path, `~\`) && filepath.Separator == '\\' {
		return filepath.Join(s.home, path[2:])
	}
	return path
}

// WithVault returns a Set that differs only in what the vault holds. It
// reads nothing.
func (s *Set) WithVault(vault map[string]VaultKey) *Set {
	c := *s
	c.vault = maps.Clone(vault)
	return &c
}

// Files tells how each file was read: config, credentials, keyfob's.
func (s *Set) Files() []FileState {
	states := make([]FileState, 0, len(s.files))
	for i := len(s.files) - 1; i >= 0; i-- {
		f := s.files[i]
		states = append(states, FileState{Kind: f.kind, Path: f.path, Exists: f.exists, Err: f.err})
	}
	return states
}

// Err returns the first error that concerns a whole file (it can't be read,
// or a line is no grammar), nil if there is none.
func (s *Set) Err() *Error {
	for i := len(s.files) - 1; i >= 0; i-- {
		if s.files[i].err != nil {
			return s.files[i].err
		}
	}
	return nil
}

// Names returns the names of all profiles of the files and the vault,
// sorted.
func (s *Set) Names() []string {
	n := len(s.vault)
	for _, f := range s.files {
		n += len(f.profiles)
	}
	all := make([]string, 0, n)
	for name := range s.vault {
		all = append(all, name)
	}
	for _, f := range s.files {
		for name := range f.profiles {
			all = append(all, name)
		}
	}
	sort.Strings(all)
	unique := all[:0]
	for i, name := range all {
		if i == 0 || name != all[i-1] {
			unique = append(unique, name)
		}
	}
	return unique
}

// Has reports whether any file or the vault has a profile of that name.
func (s *Set) Has(name string) bool {
	if _, ok := s.vault[name]; ok {
		return true
	}
	for _, f := range s.files {
		if f.profiles[name] != nil {
			return true
		}
	}
	return false
}

package access

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keyfob/internal/atomicfile"
	"keyfob/internal/cred"
)

// tokenSuffix ends the name of a token file in the grants' directory; a
// temporary one starts with tempPrefix.
const (
	tokenSuffix = ".token"
	tempPrefix  = ".token-"
	// tokenFileSize is the length of a token: tokenBytes in base64.
	tokenFileSize = (tokenBytes*8 + 5) / 6
)

// privateDir makes dir, or makes sure that it is a directory that only its
// owner can enter.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of the grants: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the directory of the grants: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("cannot use the directory of the grants: %s is no directory", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("cannot use the directory of the grants: %w", err)
		}
	}
	return nil
}

// mayReplace says whether a token may be written to a path that a person
// chose: where nothing is yet, or an older token.
func mayReplace(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("cannot write the token to %q: not an absolute path", path)
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot write the token: %w", err)
	}
	if info.Mode().IsRegular() && info.Size() == 0 {
		return nil
	}
	if info.Mode().IsRegular() && info.Size() == tokenFileSize {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot write the token: %w", err)
		}
		if raw, err := base64.RawURLEncoding.DecodeString(string(b)); err == nil && len(raw) == tokenBytes {
			return nil
		}
	}
	return cred.WithHint(fmt.Errorf("cannot write the token to %s: something else is there", path), "remove it, or name another file")
}

// writeToken writes the token's file atomically and durably.
func writeToken(path, token string) error {
	if err := atomicfile.Write(path, []byte(token), atomicfile.Options{Prefix: tempPrefix}); err != nil {
		return fmt.Errorf("cannot write the token: %w", err)
	}
	return nil
}

// removeToken removes a grant's token file if it still holds this grant's
// token; a file that is somebody else's by now stays. It is a courtesy: the
// token opens nothing any more.
func removeToken(s *storedGrant) {
	info, err := os.Lstat(s.TokenFile)
	if err != nil || !info.Mode().IsRegular() || info.Size() != tokenFileSize {
		return
	}
	b, err := os.ReadFile(s.TokenFile)
	if err == nil && sha256.Sum256(b) == s.hash {
		_ = os.Remove(s.TokenFile)
	}
}

// sweepFiles removes token files of the grants' directory that belong to no
// grant: a crash between the file and the record leaves one.
func (g *Grants) sweepFiles() error {
	entries, err := os.ReadDir(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look into the directory of the grants: %w", err)
	}
	known := g.table.Load().byID
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), tokenSuffix)
		raw, err := hex.DecodeString(id)
		ours := ok && err == nil && len(raw) == idBytes
		if temp := strings.HasPrefix(e.Name(), tempPrefix); temp || ours && known[id] == nil {
			_ = os.Remove(filepath.Join(g.dir, e.Name()))
		}
	}
	return nil
}

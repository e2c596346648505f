package sso

import (
	"context"
	"crypto/sha1" // the name of the command line's file, no protection
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"keyfob/internal/atomicfile"
	"keyfob/internal/cred"
)

// CacheDir is where the AWS command line keeps its tokens, by a home
// directory.
func CacheDir(home string) string {
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".aws", "sso", "cache")
}

// maxCache is more than any token file has.
const maxCache = 1 << 20

// cachePath is the command line's file for the sign-in: named by the SHA-1 of
// the session's name, or of the start URL.
func (s *signIn) cachePath() string {
	name := s.name
	if name == "" {
		name = s.start
	}
	sum := sha1.Sum([]byte(name))
	return filepath.Join(s.d.CacheDir, hex.EncodeToString(sum[:])+".json")
}

// cacheFile is the members that matter. Times are written as …Z; older
// botocore writes …UTC.
type cacheFile struct {
	StartURL              string `json:"startUrl"`
	Region                string `json:"region"`
	AccessToken           string `json:"accessToken"`
	ExpiresAt             string `json:"expiresAt"`
	ClientID              string `json:"clientId"`
	ClientSecret          string `json:"clientSecret"`
	RegistrationExpiresAt string `json:"registrationExpiresAt"`
	RefreshToken          string `json:"refreshToken"`
}

func cacheTime(s string) (time.Time, error) {
	if t, err := time.Parse("2006-01-02T15:04:05UTC", s); err == nil {
		return t.UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errors.New("a time in it is none") // the cause quotes it
	}
	return t.UTC(), nil
}

// parseCache reads a token file's content. Errors quote nothing of it.
func (s *signIn) parseCache(b []byte) (*tokens, error) {
	var f cacheFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, errors.New("it is not in the form of a token file")
	}
	if f.AccessToken == "" || f.ExpiresAt == "" {
		return nil, errors.New("it lacks accessToken or expiresAt")
	}
	if f.StartURL != "" && canonicalStart(f.StartURL) != canonicalStart(s.start) || f.Region != "" && f.Region != s.region {
		return nil, errors.New("it is of another start URL or region than the settings")
	}
	t := &tokens{access: cred.NewSecret(f.AccessToken)}
	var err error
	if t.expires, err = cacheTime(f.ExpiresAt); err != nil {
		return nil, err
	}
	if f.RefreshToken != "" && f.ClientID != "" && f.ClientSecret != "" && f.RegistrationExpiresAt != "" {
		if t.clientExpires, err = cacheTime(f.RegistrationExpiresAt); err != nil {
			return nil, err
		}
		t.refresh, t.clientID, t.clientSecret = cred.NewSecret(f.RefreshToken), f.ClientID, cred.NewSecret(f.ClientSecret)
	}
	return t, nil
}

// readCache returns the command line's tokens, nil where there are none that
// can be used; trouble is logged once. mu is held.
func (s *session) readCache(in *signIn) *tokens {
	path := in.cachePath()
	b, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var t *tokens
	if err == nil {
		t, err = in.parseCache(b)
	}
	if err != nil {
		s.note(in, path, "the AWS command line's token file is not used: "+reason(err))
		return nil
	}
	s.noted = ""
	return t
}

// note logs trouble with the cache, once. mu is held.
func (s *session) note(in *signIn, path, what string) {
	if s.noted == what {
		return
	}
	s.noted = what
	in.log().WithField("file", path).Warn(what)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCache+1))
	if err == nil && len(b) > maxCache {
		err = errors.New("it is longer than 1 MiB")
	}
	return b, err
}

// reason is why a file operation failed, without the path.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// lockCache takes the kernel lock of the token file where it is shared; it
// keeps other keyfobs out.
func (s *signIn) lockCache(ctx context.Context) (unlock func(), err error) {
	if !s.share() {
		return func() {}, nil
	}
	path := s.cachePath() + ".lock"
	fail := func(err error) (func(), error) {
		return nil, cred.WithHint(fmt.Errorf("cannot lock %s: %s: %w", path, reason(err), cred.ErrUnavailable),
			"share_sso_cache = true needs a directory that can be written to")
	}
	if err := os.MkdirAll(s.d.CacheDir, 0o700); err != nil {
		return fail(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fail(err)
	}
	for {
		held, err := tryLock(f)
		if err == nil && held {
			return func() { _ = f.Close() }, nil // which ends the lock
		}
		if err == nil && !sleep(ctx, 20*time.Millisecond) {
			err = errors.New("another process holds it")
		}
		if err != nil {
			_ = f.Close()
			return fail(err)
		}
	}
}

// writeCache writes tokens as the command line does, where the cache is
// shared: it keeps members that it does not know. The file's lock and mu are
// held. Trouble is logged: the tokens are in the vault.
func (s *session) writeCache(c *caller, t tokens) {
	if !c.share() {
		return
	}
	path := c.cachePath()
	if err := c.putCache(path, t); err != nil {
		s.note(c.signIn, path, "the AWS command line's token file could not be written: "+reason(err))
		return
	}
	s.noted = ""
}

func (s *signIn) putCache(path string, t tokens) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	members := map[string]json.RawMessage{}
	if old, err := readBounded(path); err == nil {
		if json.Unmarshal(old, &members) != nil || members == nil {
			members = map[string]json.RawMessage{}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	const form = "2006-01-02T15:04:05Z"
	for name, value := range map[string]string{
		"startUrl": s.start, "region": s.region, "accessToken": t.access.Reveal(), "expiresAt": t.expires.UTC().Format(form),
		"clientId": t.clientID, "clientSecret": t.clientSecret.Reveal(), "registrationExpiresAt": t.clientExpires.UTC().Format(form),
		"refreshToken": t.refresh.Reveal(),
	} {
		if value == "" {
			delete(members, name)
			continue
		}
		b, err := json.Marshal(value)
		if err != nil {
			return err
		}
		members[name] = b
	}
	b, err := json.Marshal(members)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, atomicfile.Options{})
}

package login

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/atomicfile"
	"keyfob/internal/cred"
)

// envCacheDir moves the CLI's cache.
const envCacheDir = "AWS_LOGIN_CACHE_DIRECTORY"

// CacheDir is the folder of the AWS CLI's login cache, by the rules of
// botocore: AWS_LOGIN_CACHE_DIRECTORY with variables and ~ expanded, else
// ~/.aws/login/cache.
func CacheDir(getenv func(string) string, home string) string {
	dir := getenv(envCacheDir)
	if dir == "" {
		return filepath.Join(home, ".aws", "login", "cache")
	}
	dir = os.Expand(dir, func(name string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return "${" + name + "}"
	})
	if dir == "~" {
		return home
	}
	if rest, ok := strings.CutPrefix(dir, "~/"); ok {
		return filepath.Join(home, rest)
	}
	return dir
}

func (d *Deps) cliPath(arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return filepath.Join(d.CacheDir, hex.EncodeToString(sum[:])+".json")
}

func (d *Deps) hasCLI(arn string) bool {
	if d.CacheDir == "" {
		return false
	}
	_, err := os.Stat(d.cliPath(arn))
	return err == nil
}

// brokenError is a file of the CLI's cache that can't be used. It shows
// nothing of what the file holds.
type brokenError struct {
	path, why string
	half      bool // it may be half written
}

func (e *brokenError) Error() string { return "cannot use " + e.path + ": " + e.why }

// cliFile is a file of the CLI's cache, with the members that we don't know.
type cliFile struct {
	path string
	all  map[string]json.RawMessage
	s    *session // Expires by our clock here: that is what the CLI writes
}

const (
	cliTime    = "2006-01-02T15:04:05Z"
	maxCLIFile = 1 << 20
	// Some SDKs write the file in place: half of one is looked at again.
	halfTries = 5
	halfPause = 40 * time.Millisecond
)

// readCLI reads a file. Errors: one that Is fs.ErrNotExist, *brokenError.
func readCLI(ctx context.Context, path, arn string) (*cliFile, error) {
	for try := 1; ; try++ {
		f, err := readCLIOnce(path, arn)
		var b *brokenError
		if !errors.As(err, &b) || !b.half || try == halfTries {
			return f, err
		}
		select {
		case <-ctx.Done():
			return f, err
		case <-time.After(halfPause):
		}
	}
}

func readCLIOnce(path, arn string) (*cliFile, error) {
	broken := func(format string, args ...any) (*cliFile, error) {
		return nil, &brokenError{path: path, why: fmt.Sprintf(format, args...)}
	}
	data, err := readSmall(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		return broken("%v", reason(err))
	}
	f := &cliFile{path: path}
	if err := json.Unmarshal(data, &f.all); err != nil || f.all == nil {
		return nil, &brokenError{path: path, why: "it is not whole, or no JSON object", half: true}
	}
	var known struct {
		AccessToken struct {
			AccessKeyID     string `json:"accessKeyId"`
			SecretAccessKey string `json:"secretAccessKey"`
			SessionToken    string `json:"sessionToken"`
			AccountID       string `json:"accountId"`
			ExpiresAt       string `json:"expiresAt"`
		} `json:"accessToken"`
		ClientID     string `json:"clientId"`
		RefreshToken string `json:"refreshToken"`
		DPoPKey      string `json:"dpopKey"`
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return broken("a member of it has the wrong type")
	}
	for _, m := range []struct{ name, value string }{{"clientId", known.ClientID}, {"refreshToken", known.RefreshToken}, {"dpopKey", known.DPoPKey}} {
		if m.value == "" {
			return broken("it has no %s", m.name)
		}
	}
	key, err := parseKey(known.DPoPKey)
	if err != nil {
		return broken("dpopKey: %v", err)
	}
	f.s = &session{arn: arn, clientID: known.ClientID, key: key, refresh: cred.NewSecret(known.RefreshToken)}
	a := known.AccessToken
	f.s.access.AccountID = accountOf(arn)
	if f.s.access.AccountID == "" {
		f.s.access.AccountID = a.AccountID
	}
	// Credentials that can't be used are refreshed.
	if ends, err := parseTime(a.ExpiresAt); err == nil && a.AccessKeyID != "" && a.SecretAccessKey != "" && a.SessionToken != "" {
		f.s.access.AccessKeyID, f.s.access.Expires = a.AccessKeyID, ends
		f.s.access.SecretAccessKey, f.s.access.SessionToken = cred.NewSecret(a.SecretAccessKey), cred.NewSecret(a.SessionToken)
	}
	return f, nil
}

func parseTime(s string) (time.Time, error) {
	if t, ok := strings.CutSuffix(s, "UTC"); ok { // of older versions of botocore
		s = t + "Z"
	}
	t, err := time.Parse(time.RFC3339, s)
	return t.UTC(), err
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Size() > maxCLIFile:
		return nil, errors.New("it is longer than any of its kind")
	}
	return io.ReadAll(io.LimitReader(f, maxCLIFile))
}

// reason is err's own words without the path, which the caller names.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}

// write replaces the file by one with y's credentials and refresh token, and
// every other member as it was.
func (f *cliFile) write(y *session, expires time.Time) error {
	access := map[string]json.RawMessage{}
	if raw, ok := f.all["accessToken"]; ok {
		_ = json.Unmarshal(raw, &access) // it was read before
	}
	if access == nil {
		access = map[string]json.RawMessage{}
	}
	for _, m := range []struct {
		name, value string
		in          map[string]json.RawMessage
	}{
		{"accessKeyId", y.access.AccessKeyID, access},
		{"secretAccessKey", y.access.SecretAccessKey.Reveal(), access},
		{"sessionToken", y.access.SessionToken.Reveal(), access},
		{"accountId", y.access.AccountID, access},
		{"expiresAt", expires.UTC().Format(cliTime), access},
		{"refreshToken", y.refresh.Reveal(), f.all},
	} {
		raw, err := encode(m.value)
		if err != nil {
			return err
		}
		if m.value != "" {
			m.in[m.name] = raw
		}
	}
	raw, err := encode(access)
	if err != nil {
		return err
	}
	f.all["accessToken"] = raw
	data, err := encode(f.all)
	if err != nil {
		return err
	}
	target := f.path
	if real, err := filepath.EvalSymlinks(f.path); err == nil {
		target = real
	}
	if err := atomicfile.Write(target, data, atomicfile.Options{}); err != nil {
		return fmt.Errorf("cannot write %s: %w", f.path, reason(err))
	}
	return nil
}

// encode is v in JSON, without the escapes that are for web pages.
func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

const lockPoll = 10 * time.Millisecond // between two tries for a lock that another holds

// lockCLI takes the kernel's lock on FILE.lock: one keyfob at a time refreshes
// and writes the file. The CLI itself takes no lock.
func lockCLI(ctx context.Context, path string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	l := flock.New(path+".lock", flock.SetPermissions(0o600))
	if ok, err := l.TryLockContext(ctx, lockPoll); !ok {
		_ = l.Close()
		switch {
		case err == nil || errors.Is(err, context.DeadlineExceeded):
			err = errors.New("another program holds the lock")
		case errors.Is(err, context.Canceled):
			return nil, err
		}
		return nil, fmt.Errorf("cannot lock %s.lock: %w", path, reason(err))
	}
	return func() { _ = l.Close() }, nil
}

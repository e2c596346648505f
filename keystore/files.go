package keystore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/atomicfile"
)

const (
	lockFile = "vault.lock"
	lockPoll = 3 * time.Millisecond // between two tries for a lock that another holds
)

// The lock between processes guards the vault's files: whoever writes or
// removes a record holds it shared, whoever writes the header, sets a record
// aside or sweeps temporary files holds it alone. It is the kernel's, so it
// ends with its process. Readers need none: files are replaced by renaming.

// lockShared takes the lock for one write.
func (v *Vault) lockShared(ctx context.Context) (unlock func(), err error) {
	return lockDir(ctx, v.dir, (*flock.Flock).TryRLockContext)
}

// lockAlone takes the lock for a change of what others rely on.
func (v *Vault) lockAlone(ctx context.Context) (unlock func(), err error) {
	return lockDir(ctx, v.dir, (*flock.Flock).TryLockContext)
}

func lockDir(ctx context.Context, dir string, take func(*flock.Flock, context.Context, time.Duration) (bool, error)) (func(), error) {
	// One descriptor for each holder: these locks belong to descriptors.
	f := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	if ok, err := take(f, ctx, lockPoll); !ok {
		_ = f.Close()
		if err == nil {
			err = errors.New("it is held")
		}
		return nil, fmt.Errorf("cannot lock the vault %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}

// sweep removes what killed writers left. It does nothing while anybody
// writes.
func sweep(dir string) {
	f := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	defer func() { _ = f.Close() }()
	if ok, err := f.TryLock(); err != nil || !ok {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// errTooLong: the file is longer than anything of ours.
var errTooLong = errors.New("the file is too long")

// readFile reads a file of at most max bytes.
func readFile(path string, max int) ([]byte, error) {
	f, err := openRetrying(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > int64(max) {
		return nil, fmt.Errorf("%s: %w", path, errTooLong)
	}
	// Files are never changed in place, so the size is the whole story.
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return b, nil
}

// writeFile replaces dir/name by a file of mode 0600, atomically and
// durably.
func writeFile(dir, name string, data []byte) error {
	return atomicfile.Write(filepath.Join(dir, name), data, atomicfile.Options{Prefix: tempPrefix})
}

// openRetrying is os.Open that waits, on Windows, while a file is replaced.
func openRetrying(path string) (f *os.File, err error) {
	err = atomicfile.Retry(func() error { f, err = os.Open(path); return err })
	return f, err
}

// corruptOf returns the file name of the record that was set aside in a
// file of that name.
func corruptOf(file string) (record string, ok bool) {
	record, stamp, found := strings.Cut(file, corruptMark)
	if !found {
		return "", false
	}
	if _, err := strconv.ParseInt(stamp, 10, 64); err != nil {
		return "", false
	}
	_, _, ok = recordName(record)
	return record, ok
}

// setAside renames a record's file to NAME.corrupt-<unix time> and returns
// the new name. The caller holds the lock alone.
func setAside(dir, file string, now time.Time) (string, error) {
	for t := now.Unix(); ; t++ { // a second file of one second takes the next
		to := file + corruptMark + strconv.FormatInt(t, 10)
		if _, err := os.Lstat(filepath.Join(dir, to)); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err := atomicfile.Rename(filepath.Join(dir, file), filepath.Join(dir, to)); err != nil {
			return "", err
		}
		return to, atomicfile.SyncDir(dir)
	}
}

package keystore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyfob/internal/atomicfile"
	"keyfob/internal/cred"
)

// checkCall is what every Store does first.
func checkCall(ctx context.Context, name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("cannot use a record name of %d bytes: it has 1 to %d", len(name), maxName)
	}
	return ctx.Err()
}

func checkValue(name string, value cred.Secret) error {
	if value.Len() > maxValue {
		return fmt.Errorf("cannot store record %s: it has %d bytes, more than %d", printable(name), value.Len(), maxValue)
	}
	return nil
}

func notFound(name string) error { return fmt.Errorf("%w: %s", cred.ErrNotFound, printable(name)) }

// Get returns the record. It takes no lock and starts no process. Errors:
// cred.ErrLocked; cred.ErrNotFound; a *CorruptError, which is
// cred.ErrNotFound too, for a damaged record, which is set aside;
// ErrNewerVersion, and then the record stays as it is; ErrReplaced; those of
// the file system.
func (v *Vault) Get(ctx context.Context, name string) (cred.Secret, error) {
	if err := checkCall(ctx, name); err != nil {
		return cred.Secret{}, err
	}
	u := v.unlocked.Load()
	if u == nil {
		return cred.Secret{}, cred.ErrLocked
	}
	s, err := v.read(u, name)
	if _, bad := isBad(err); bad {
		return v.readDamaged(ctx, u, name)
	}
	if errors.Is(err, cred.ErrNotFound) {
		if c := v.wasSetAside(name); c != nil {
			return cred.Secret{}, c
		}
	}
	return s, err
}

// read reads and opens one record. Errors: badRecord, cred.ErrNotFound,
// ErrNewerVersion, those of the file system.
func (v *Vault) read(u *unlocked, name string) (cred.Secret, error) {
	b, err := readFile(filepath.Join(v.dir, fileName(name)), maxRecordFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cred.Secret{}, notFound(name)
	case errors.Is(err, errTooLong):
		return cred.Secret{}, badRecord("it is too long")
	case err != nil:
		return cred.Secret{}, fmt.Errorf("cannot read record %s: %w", printable(name), err)
	}
	value, err := openRecord(u.aead, v.id, name, b)
	if errors.Is(err, ErrNewerVersion) {
		return cred.Secret{}, fmt.Errorf("cannot open record %s: it was %w", printable(name), err)
	}
	if err != nil {
		return cred.Secret{}, err
	}
	defer clear(value)
	return cred.SecretBytes(value), nil
}

// readDamaged reads a record again, with nobody writing, and sets it aside
// if it is damaged indeed.
func (v *Vault) readDamaged(ctx context.Context, u *unlocked, name string) (cred.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	unlock, err := v.lockAlone(ctx)
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot set the damaged record %s aside: %w", printable(name), err)
	}
	defer unlock()
	if _, err := v.currentHeader(); err != nil {
		return cred.Secret{}, err
	}
	s, err := v.read(u, name)
	why, bad := isBad(err)
	if !bad {
		return s, err
	}
	file := fileName(name)
	to, err := setAside(v.dir, file, time.Now())
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot set the record %s aside, which is %w (%s): %w", printable(name), ErrCorrupt, why, err)
	}
	v.mu.Lock()
	v.aside[file] = to
	v.mu.Unlock()
	c := &CorruptError{Name: name, File: filepath.Join(v.dir, to), Why: why}
	v.log.WithField("record", name).WithField("file", c.File).Error("a record of the vault is damaged and was set aside: " + why)
	return cred.Secret{}, c
}

// wasSetAside returns why there is no record name: it was damaged once.
func (v *Vault) wasSetAside(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	file, ok := v.aside[fileName(name)]
	if !ok {
		return nil
	}
	return &CorruptError{Name: name, File: filepath.Join(v.dir, file), Why: "it was damaged"}
}

// Put writes the record and returns when it is on disk. Writers do not wait
// for one another, nor readers for writers. Errors: cred.ErrLocked,
// ErrReplaced, those of the file system; then the old record is untouched.
func (v *Vault) Put(ctx context.Context, name string, value cred.Secret) error {
	if err := checkCall(ctx, name); err != nil {
		return err
	}
	if err := checkValue(name, value); err != nil {
		return err
	}
	u := v.unlocked.Load()
	if u == nil {
		return cred.ErrLocked
	}
	plain := value.AppendReveal(make([]byte, 0, value.Len()))
	b := sealRecord(u.aead, v.id, name, plain)
	clear(plain)

	unlock, err := v.lockShared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := v.currentHeader(); err != nil {
		return err
	}
	if err := writeFile(v.dir, fileName(name), b); err != nil {
		return fmt.Errorf("cannot write record %s: %w", printable(name), err)
	}
	return nil
}

// Delete removes the record, and what was set aside under its name, and
// works while locked. Errors: cred.ErrNotFound, those of the file system.
func (v *Vault) Delete(ctx context.Context, name string) error {
	if err := checkCall(ctx, name); err != nil {
		return err
	}
	unlock, err := v.lockShared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	file := fileName(name)
	_, corrupt, err := recordFiles(v.dir)
	if err != nil {
		return err
	}
	doomed := slices.DeleteFunc(corrupt, func(f string) bool { r, _ := corruptOf(f); return r != file })
	removed := false
	for _, f := range append([]string{file}, doomed...) {
		switch err := atomicfile.Retry(func() error { return os.Remove(filepath.Join(v.dir, f)) }); {
		case err == nil:
			removed = true
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("cannot delete record %s: %w", printable(name), err)
		}
	}
	v.mu.Lock()
	delete(v.aside, file)
	v.mu.Unlock()
	if !removed {
		return notFound(name)
	}
	if err := atomicfile.SyncDir(v.dir); err != nil {
		return fmt.Errorf("cannot delete record %s: %w", printable(name), err)
	}
	return nil
}

// List returns the names that start with prefix, sorted, and works while
// locked.
func (v *Vault) List(ctx context.Context, prefix string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	files, _, err := recordFiles(v.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		name, hashed, _ := recordName(f)
		if hashed {
			if name, err = hashedName(v.dir, f); err != nil {
				continue // removed meanwhile, or damaged: found when it is read
			}
		}
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// hashedName reads a record's name from its file, where the file's name is
// only a hash of it.
func hashedName(dir, file string) (string, error) {
	f, err := openRetrying(filepath.Join(dir, file))
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, recordHead+maxName+64)
	n, err := f.Read(head)
	if err != nil {
		return "", err
	}
	name, _, _, err := splitRecord(head[:n])
	if err != nil {
		return "", err
	}
	if fileName(name) != file {
		return "", badRecord("it is another record")
	}
	return name, nil
}

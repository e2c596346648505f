package rolesanywhere

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"

	"keyfob/internal/cred"
)

// maxFile bounds what is read of a certificate or key file.
const maxFile = 1 << 20

// fileState tells whether a file is still what was read.
type fileState struct {
	path string
	info os.FileInfo
}

// unchanged goes by size, time of change and inode.
func unchanged(files []fileState) bool {
	for _, f := range files {
		info, err := os.Stat(f.path)
		if err != nil || !os.SameFile(info, f.info) || info.Size() != f.info.Size() || !info.ModTime().Equal(f.info.ModTime()) {
			return false
		}
	}
	return true
}

// identity reads certificate and key from where they are. Files that are
// replaced meanwhile are read again, so that the parts fit together.
func (s *source) identity(ctx context.Context) (*identity, error) {
	for tries := 1; ; tries++ {
		id, err := s.load(ctx)
		if id != nil && unchanged(id.files) || tries == 3 || ctx.Err() != nil || id == nil {
			if err == nil {
				s.remember(id)
			}
			return id, err
		}
	}
}

// load reads once. With an error the identity tells what was read so far,
// nil where nothing was.
func (s *source) load(ctx context.Context) (*identity, error) {
	l := &loader{s: s}
	id := &identity{from: s.certificate.String(), keyFrom: s.key.String()}
	var certs, more []*x509.Certificate
	own := s.key.kind == nowhere // the key is beside the certificate
	if own {
		id.keyFrom = id.from
	}
	err := func() error {
		switch s.certificate.kind {
		case onToken:
			cert, err := l.tokenCertificate(ctx, s.certificate)
			if err != nil {
				return err
			}
			certs = []*x509.Certificate{cert}
			if own {
				id.signer = s.tokenSigner(s.certificate)
			}
		default:
			b, err := l.bundle(ctx, s.certificate, own)
			if err != nil {
				return err
			}
			certs = b.certs
			if len(certs) == 0 {
				return s.certificate.unusable("it holds no certificate", b.hint)
			}
			if own {
				if b.signer == nil {
					return s.certificate.unusable("it holds no private key", "name the key's file with "+settingKey)
				}
				id.signer = b.signer
			}
		}
		switch s.key.kind {
		case nowhere:
		case onToken:
			id.signer = s.tokenSigner(s.key)
		default:
			b, err := l.bundle(ctx, s.key, true)
			if err != nil {
				return err
			}
			if b.signer == nil {
				return s.key.unusable("it holds no private key", b.hint)
			}
			id.signer = b.signer
		}
		if s.chain.kind != nowhere {
			b, err := l.bundle(ctx, s.chain, false)
			if err != nil {
				return err
			}
			if more = b.certs; len(more) == 0 {
				return s.chain.unusable("it holds no certificate", b.hint)
			}
		}
		return nil
	}()
	id.files, id.warnings = l.files, l.warnings
	if err != nil {
		if len(l.files) == 0 {
			return nil, err
		}
		return id, err
	}
	id.arrange(certs, more)
	return id, nil
}

// unusable is a place whose contents can't be used.
func (l location) unusable(why, help string) error {
	return &settingsError{msg: "cannot use " + l.setting + " " + l.String() + ": " + why, help: help}
}

// loader reads what one identity is made of.
type loader struct {
	s        *source
	files    []fileState
	warnings []warning
}

// bundle reads a place that is a file or in the vault. Keys are looked at
// only where one is wanted.
func (l *loader) bundle(ctx context.Context, at location, wantKey bool) (*bundle, error) {
	var text cred.Secret // a certificate's text is no secret, a key's is
	var err error
	if at.kind == inVault {
		text, err = l.s.fromVault(ctx, at)
	} else {
		text, err = l.file(at)
	}
	if err != nil {
		return nil, err
	}
	p := &parser{at: at, wantKey: wantKey, passphrase: func() (cred.Secret, error) { return l.s.passphrase(ctx, at) }}
	b, err := p.parse(text)
	if err != nil {
		return nil, err
	}
	if b.tpm != nil {
		b.signer = &tpmSigner{s: l.s, at: at, key: b.tpm}
	}
	if at.kind == inFile && b.plainKey {
		if w, bad := openToOthers(l.files[len(l.files)-1]); bad {
			l.warnings = append(l.warnings, w)
		}
	}
	return b, nil
}

// file reads a regular file.
func (l *loader) file(at location) (cred.Secret, error) {
	failed := func(err error) (cred.Secret, error) {
		why := err.Error()
		var p *fs.PathError
		if errors.As(err, &p) {
			why = p.Err.Error()
		}
		return cred.Secret{}, &settingsError{msg: "cannot read " + at.setting + " " + at.name + ": " + why, help: "correct " + at.setting + ", or let keyfobd's user read the file", err: err}
	}
	info, err := os.Stat(at.name)
	if err != nil {
		return failed(err)
	}
	if !info.Mode().IsRegular() { // a FIFO would hold the fetch for as long as nobody writes to it
		return failed(errors.New("it is not a regular file"))
	}
	f, err := os.Open(at.name)
	if err != nil {
		return failed(err)
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err = f.Stat(); err != nil {
		return failed(err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	defer clear(b)
	switch {
	case err != nil:
		return failed(err)
	case len(b) > maxFile:
		return failed(errors.New("it is longer than 1 MiB"))
	}
	l.files = append(l.files, fileState{at.name, info})
	return cred.SecretBytes(b), nil
}

package daemon

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/source/rolesanywhere"
)

// placeRecords + the hash in a passphrase record's name hold what the
// passphrase is of: the hash does not tell.
const placeRecords = "certificate-place/"

// placeRecord is the record that says what a stored passphrase is of.
func placeRecord(where string) string {
	name := rolesanywhere.PassphraseRecord(where)
	return placeRecords + name[strings.LastIndexByte(name, '/')+1:]
}

// certificateAdd keeps a certificate with its key in the vault, or the
// passphrase of a key that stays where it is.
func (d *daemon) certificateAdd(c *call) (any, error) {
	p, err := decode[control.CertificateParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	if p.Name == "" {
		return d.passphraseAdd(c.ctx, p)
	}
	if p.Certificate == "" || p.Where != "" {
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot add the certificate: a certificate is needed, and no place"}
	}
	switch _, err := rolesanywhere.GetCertificate(c.ctx, d.vault, p.Name); {
	case err == nil && !p.Force:
		return nil, &control.Error{Code: control.CodeExists, Message: "cannot add the certificate: the vault has one named " + p.Name, Hint: "--force replaces it"}
	case err != nil && !errors.Is(err, cred.ErrNotFound):
		return nil, err
	}
	text, err := certificateText(p)
	if err != nil {
		return nil, err
	}
	if err := rolesanywhere.PutCertificate(c.ctx, d.vault, p.Name, text, cred.NewSecret(p.Passphrase)); err != nil {
		return nil, err
	}
	d.log.WithField(logging.Method, control.MethodCertificateAdd).WithField("certificate", p.Name).Info("certificate stored")
	d.broker.Wake("")
	return d.certificate(c.ctx, p.Name)
}

// certificateText joins what belongs together: PEM, or a PKCS #12 file.
func certificateText(p control.CertificateParams) (cred.Secret, error) {
	if strings.Contains(p.Certificate, "-----BEGIN ") {
		return cred.NewSecret(strings.Join([]string{p.Certificate, p.PrivateKey, p.Intermediates}, "\n")), nil
	}
	b, err := base64.StdEncoding.DecodeString(p.Certificate)
	if err != nil {
		return cred.Secret{}, &control.Error{Code: control.CodeUsage, Message: "cannot add the certificate: it is neither PEM nor PKCS #12"}
	}
	if p.PrivateKey != "" || p.Intermediates != "" {
		return cred.Secret{}, &control.Error{Code: control.CodeUsage, Message: "cannot add the certificate: a PKCS #12 file holds its own key and intermediates"}
	}
	return cred.SecretBytes(b), nil
}

func (d *daemon) passphraseAdd(ctx context.Context, p control.CertificateParams) (any, error) {
	switch {
	case p.Where == "" || p.Passphrase == "":
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot keep the passphrase: a place and a passphrase are needed"}
	case !filepath.IsAbs(p.Where) && !strings.HasPrefix(p.Where, "pkcs11:") && !strings.HasPrefix(p.Where, "vault:"):
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot keep the passphrase of " + p.Where + ": it is no absolute path, pkcs11: URI or vault:NAME"}
	}
	if err := d.vault.Put(ctx, placeRecord(p.Where), cred.NewSecret(p.Where)); err != nil {
		return nil, err
	}
	if err := rolesanywhere.PutPassphrase(ctx, d.vault, p.Where, cred.NewSecret(p.Passphrase)); err != nil {
		return nil, err
	}
	d.log.WithField(logging.Method, control.MethodCertificateAdd).Info("passphrase of a key stored")
	d.broker.Wake("")
	return control.CertificateEntry{Where: p.Where}, nil
}

// certificate describes one that is in the vault: the first that is no
// authority's.
func (d *daemon) certificate(ctx context.Context, name string) (control.CertificateEntry, error) {
	e := control.CertificateEntry{Name: name}
	record, err := rolesanywhere.GetCertificate(ctx, d.vault, name)
	if err != nil {
		return e, err
	}
	raw := record.AppendReveal(nil)
	defer clear(raw)
	var leaf *x509.Certificate
	for rest := raw; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			if cert, err := x509.ParseCertificate(bytes.Clone(block.Bytes)); err == nil && (leaf == nil || leaf.IsCA && !cert.IsCA) {
				leaf = cert
			}
		}
		clear(block.Bytes)
	}
	if leaf == nil {
		e.Warning = "it can't be read: add it again"
		return e, nil
	}
	e.Subject, e.Serial = leaf.Subject.String(), leaf.SerialNumber.String()
	e.NotBefore, e.NotAfter = stampText(leaf.NotBefore), stampText(leaf.NotAfter)
	switch now := time.Now().Add(d.skewNow()); {
	case now.After(leaf.NotAfter):
		e.Warning = "it has expired"
	case now.Before(leaf.NotBefore):
		e.Warning = "it is not valid yet"
	case leaf.NotAfter.Sub(now) < rolesanywhere.WarnBefore:
		e.Warning = fmt.Sprintf("it ends in %d days", int(leaf.NotAfter.Sub(now)/(24*time.Hour)))
	}
	return e, nil
}

func (d *daemon) certificateList(c *call) (any, error) {
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	prefix := rolesanywhere.CertificateRecord("")
	names, err := d.vault.List(c.ctx, prefix)
	if err != nil {
		return nil, err
	}
	out := control.CertificateListResult{Certificates: []control.CertificateEntry{}}
	for _, n := range names {
		e, err := d.certificate(c.ctx, strings.TrimPrefix(n, prefix))
		if errors.Is(err, cred.ErrNotFound) {
			continue // removed meanwhile, or set aside: status tells
		}
		if err != nil {
			return nil, err
		}
		out.Certificates = append(out.Certificates, e)
	}
	places, err := d.vault.List(c.ctx, placeRecords)
	if err != nil {
		return nil, err
	}
	for _, n := range places {
		where, err := d.vault.Get(c.ctx, n)
		if errors.Is(err, cred.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out.Certificates = append(out.Certificates, control.CertificateEntry{Where: where.Reveal()})
	}
	return out, nil
}

func (d *daemon) certificateRemove(c *call) (any, error) {
	p, err := decode[control.CertificateParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	record, what := rolesanywhere.CertificateRecord(p.Name), "the certificate "+p.Name
	if p.Name == "" {
		record, what = rolesanywhere.PassphraseRecord(p.Where), "the passphrase of "+p.Where
	}
	if p.Name == "" && p.Where == "" {
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot remove it: a name or a place is needed"}
	}
	err = d.vault.Delete(c.ctx, record)
	if p.Name == "" {
		if perr := d.vault.Delete(c.ctx, placeRecord(p.Where)); err == nil && !errors.Is(perr, cred.ErrNotFound) {
			err = perr
		}
	}
	if errors.Is(err, cred.ErrNotFound) {
		return nil, &control.Error{Code: control.CodeNotFound, Message: "cannot remove " + what + ": the vault has none", Hint: "keyfob certificate list"}
	}
	if err != nil {
		return nil, err
	}
	d.log.WithField(logging.Method, control.MethodCertificateRemove).Info("removed from the vault")
	return control.Empty{}, nil
}

package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"keyfob/internal/control"
)

// certificateOptions are the flags of `keyfob certificate`.
type certificateOptions struct{ certificate, privateKey, intermediates string }

func certificateFlags(o *options, fs *flag.FlagSet) {
	c := &o.certificate
	fs.StringVar(&c.certificate, "certificate", "", "`file`: PEM, or PKCS #12 (.p12, .pfx)")
	fs.StringVar(&c.privateKey, "private-key", "", "`file` with the private key, where that does not hold it")
	fs.StringVar(&c.intermediates, "intermediates", "", "`file` with intermediate certificates")
	fs.BoolVar(&o.force, "force", false, "replace the one of that name")
}

// maxCertificate bounds a file that is read: nobody's chain is larger.
const maxCertificate = 512 << 10

// certificateAdd is `keyfob certificate add NAME`.
func (a *app) certificateAdd(in invocation) int {
	const what = "add the certificate"
	o := a.opts.certificate
	if o.certificate == "" {
		return a.fail(what, usage("cannot add a certificate without --certificate", "keyfob certificate add NAME --certificate FILE [--private-key FILE]"))
	}
	p := control.CertificateParams{Name: in.args[0], Force: a.opts.force}
	cert, err := readCertificate(o.certificate)
	if err != nil {
		return a.fail(what, err)
	}
	defer clear(cert)
	pkcs12 := !bytes.Contains(cert, []byte("-----BEGIN "))
	if pkcs12 {
		p.Certificate = base64.StdEncoding.EncodeToString(cert)
	} else {
		p.Certificate = string(cert)
	}
	for _, f := range []struct {
		path string
		into *string
	}{{o.privateKey, &p.PrivateKey}, {o.intermediates, &p.Intermediates}} {
		if f.path == "" {
			continue
		}
		b, err := readCertificate(f.path)
		if err != nil {
			return a.fail(what, err)
		}
		if !bytes.Contains(b, []byte("-----BEGIN ")) {
			return a.fail(what, failure("cannot use "+f.path+": it is not PEM", "openssl x509 or openssl pkey, with -inform DER, make PEM of it"))
		}
		*f.into = string(b)
		clear(b)
	}
	if sealed(p.Certificate) || sealed(p.PrivateKey) || pkcs12 {
		if p.Passphrase, err = a.readPassphrase("Passphrase of " + orText(o.privateKey, o.certificate)); err != nil {
			return a.fail(what, err)
		}
	}
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var r control.CertificateEntry
	if err := a.call(ctx, control.MethodCertificateAdd, p, &r, a.handler("certificate")); err != nil {
		return a.fail(what, err)
	}
	if r.Warning != "" {
		a.notice(p.Name + ": " + r.Warning)
	}
	if a.opts.json {
		return a.printJSON(r)
	}
	code := a.print(oneLine(fmt.Sprintf("added %s: %s, until %s", p.Name, r.Subject, r.NotAfter)) + "\n")
	a.advise("roles_anywhere_certificate = vault:" + p.Name)
	return code
}

// readCertificate reads a file whole. Nothing of it is part of an error.
func readCertificate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, errorOf(err))
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxCertificate+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, errorOf(err))
	}
	if len(b) > maxCertificate {
		return nil, failure("cannot use "+path+": it is larger than 512 KiB", "")
	}
	return b, nil
}

// errorOf drops the operation and the path, which the message names itself.
func errorOf(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// sealed reports whether a PEM text holds a key that a passphrase opens.
func sealed(text string) bool {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return false
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
}

// readPassphrase asks for one, or reads it as a line of standard input.
func (a *app) readPassphrase(what string) (string, error) {
	if !a.stdinIsTerminal() {
		return (&lineSource{from: a.Stdin}).next()
	}
	pass, err := askTerminal(context.Background(), oneLine(what)+": ", false)
	if errors.Is(err, errNoTerminal) {
		return "", person("cannot ask for the passphrase: there is no terminal", "give it as one line of standard input")
	}
	return pass, err
}

// certificatePassphrase is `keyfob certificate passphrase FILE|URI`: of a key
// that stays where it is.
func (a *app) certificatePassphrase(in invocation) int {
	const what = "keep the passphrase"
	where := in.args[0]
	if !strings.HasPrefix(where, "pkcs11:") && !strings.HasPrefix(where, "vault:") {
		where = a.absolute(where)
		if _, err := os.Stat(where); err != nil {
			return a.fail(what, fmt.Errorf("cannot keep the passphrase of %s: %w", where, errorOf(err)))
		}
	}
	pass, err := a.readPassphrase("Passphrase, password or PIN of " + where)
	if err == nil && pass == "" {
		err = failure("cannot keep the passphrase: it is empty", "")
	}
	if err != nil {
		return a.fail(what, err)
	}
	return a.plainCall(what, control.MethodCertificateAdd, control.CertificateParams{Where: where, Passphrase: pass}, "kept the passphrase of "+oneLine(where), control.CertificateEntry{Where: where})
}

// certificateList is `keyfob certificate list`.
func (a *app) certificateList(invocation) int {
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var r control.CertificateListResult
	if err := a.call(ctx, control.MethodCertificateList, control.Empty{}, &r, a.handler("certificate")); err != nil {
		return a.fail("list the certificates", err)
	}
	if r.Certificates == nil {
		r.Certificates = []control.CertificateEntry{}
	}
	if a.opts.json {
		return a.printJSON(r)
	}
	if len(r.Certificates) == 0 {
		a.notice("the vault holds no certificate")
		return exitDone
	}
	var b strings.Builder
	for _, c := range r.Certificates {
		if c.Name == "" {
			b.WriteString(oneLine("passphrase of "+c.Where) + "\n")
			continue
		}
		line := fmt.Sprintf("vault:%s  %s  serial %s  until %s", c.Name, c.Subject, c.Serial, c.NotAfter)
		if c.Warning != "" {
			line += "  (" + c.Warning + ")"
		}
		b.WriteString(oneLine(line) + "\n")
	}
	return a.print(b.String())
}

// certificateRemove is `keyfob certificate remove NAME|FILE|URI`: a
// certificate by its name, a passphrase by what it is of.
func (a *app) certificateRemove(in invocation) int {
	const what = "remove it"
	arg := in.args[0]
	p := control.CertificateParams{Name: arg}
	text := "the certificate and key " + arg
	if strings.ContainsAny(arg, `/\`) || strings.HasPrefix(arg, "pkcs11:") || strings.HasPrefix(arg, "vault:") {
		if p = (control.CertificateParams{Where: arg}); !strings.HasPrefix(arg, "pkcs11:") && !strings.HasPrefix(arg, "vault:") {
			p.Where = a.absolute(arg)
		}
		text = "the passphrase of " + p.Where
	}
	if err := a.confirm("Remove "+text+" from the vault?", "cannot remove "+text, "keyfob certificate remove "+quoted(arg)+" --yes"); err != nil {
		return a.fail(what, err)
	}
	return a.plainCall(what, control.MethodCertificateRemove, p, "removed "+oneLine(text), control.CertificateEntry{Name: p.Name, Where: p.Where})
}

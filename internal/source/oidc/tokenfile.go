package oidc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// The length of a token as STS takes it
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html),
// and of a file with white space at its end.
const (
	minToken     = 4
	maxToken     = 20000
	maxTokenFile = maxToken + 1024
)

// tokenFile is a web-identity link: a role by a token that another program
// keeps fresh in a file.
type tokenFile struct {
	*assume
	path string
}

func newTokenFile(link profiles.Link, d Deps) (*tokenFile, error) {
	a, err := newAssume(link, d)
	if err != nil {
		return nil, err
	}
	path := link.Params["web_identity_token_file"]
	if path == "" {
		return nil, unusable(link.Profile, "web_identity_token_file is missing", "", nil)
	}
	return &tokenFile{assume: a, path: path}, nil
}

// Interactive is false: nobody is asked.
func (f *tokenFile) Interactive() bool { return false }

// Fetch implements cred.Source. The file is read each time.
func (f *tokenFile) Fetch(ctx context.Context, _ cred.Input) (cred.Credentials, error) {
	token, err := f.read()
	if err != nil {
		return cred.Credentials{}, err
	}
	said, _ := peek(token.Reveal())
	said.person = "" // such tokens are programs'
	return f.with(ctx, token, said, "the token in "+f.path)
}

// read returns the token. What is wrong with the file is said here: AWS would
// only call the token invalid.
func (f *tokenFile) read() (cred.Secret, error) {
	bad := func(why, help string, err error) (cred.Secret, error) {
		return cred.Secret{}, unusable(f.link.Profile, "the web identity token file "+f.path+" "+why, help, err)
	}
	const writer = "whatever writes the token may not have run yet, or web_identity_token_file (AWS_WEB_IDENTITY_TOKEN_FILE) names another file"
	info, err := os.Stat(f.path) // before it is opened: a pipe would wait for its writer
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return bad("does not exist", writer, err)
	case err == nil && !info.Mode().IsRegular():
		return bad("is no regular file", "web_identity_token_file must be the path of a file", nil)
	}
	var b []byte
	if err == nil {
		b, err = readAtMost(f.path, maxTokenFile+1)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return bad("cannot be read: "+path.Err.Error(), "the user who runs keyfobd must be able to read it", err)
	}
	if err != nil {
		return bad("cannot be read: "+err.Error(), "", err)
	}
	long := len(b) > maxTokenFile
	b = bytes.TrimRight(b, " \t\r\n\v\f")
	switch {
	case len(b) == 0 && !long:
		return bad("is empty", writer, nil)
	case len(b) > maxToken || long:
		return bad(fmt.Sprintf("holds more than the %d characters of the longest token that AWS takes", maxToken), "it must hold the token alone", nil)
	case len(b) < minToken:
		return bad("holds no token", "it must hold a JWT", nil)
	}
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return bad("holds no token: there are characters in it that no token has", "it must hold a JWT alone, in one line, without a byte-order mark", nil)
		}
	}
	return cred.SecretBytes(b), nil
}

func readAtMost(path string, n int64) (b []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err = io.ReadAll(io.LimitReader(f, n))
	if err2 := f.Close(); err == nil {
		err = err2
	}
	return b, err
}

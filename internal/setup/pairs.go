package setup

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"keyfob/profiles"
)

// Secret is a secret access key on its way into the vault. It prints as
// [redacted].
type Secret struct{ text string }

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

// Format makes every verb of fmt print [redacted].
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, profiles.Redacted) }

// MarshalText keeps it out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(profiles.Redacted), nil }

// Pair is a long-lived key pair as it was found in plain text.
type Pair struct {
	Profile     string // "" where the place names none
	AccessKeyID string
	Secret      Secret
	File        string // "" for the environment
	Line        int    // of the key id
	// Also are other profiles of the same file with the same key.
	Also []string
}

// Left is a profile whose keys are not imported.
type Left struct {
	Profile string `json:"profile"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Why     string `json:"why"`
}

const temporary = "they are temporary: they carry a session token"

// Credentials finds the key pairs of an AWS credentials file, and those that
// are none.
func Credentials(f *File) (pairs []Pair, left []Left, err error) {
	all, err := f.Settings()
	if err != nil {
		return nil, nil, err
	}
	type found struct{ id, secret, token profiles.TextSetting }
	var order []string
	sections := map[string]*found{}
	for _, s := range all {
		x := sections[s.Section]
		if x == nil {
			x = &found{}
			sections[s.Section] = x
			order = append(order, s.Section)
		}
		switch s.Key {
		case "aws_access_key_id":
			x.id = s
		case "aws_secret_access_key":
			x.secret = s
		case "aws_session_token", "aws_security_token":
			x.token = s
		}
	}
	byID := map[string][]int{}
	for _, name := range order {
		x := sections[name]
		line := max(x.id.Line, 1)
		if x.id.Line == 0 {
			line = x.secret.Line
		}
		why := ""
		switch {
		case x.id.Value == "" && x.secret.Value == "":
			continue
		case x.id.Value == "" || x.secret.Value == "":
			why = "half of the pair is missing"
		case x.token.Value != "" || strings.HasPrefix(x.id.Value, "ASIA"):
			why = temporary
		case strings.ContainsAny(x.id.Value+x.secret.Value, "\n \t"):
			why = "they are no keys: they have blanks in them"
		case strings.HasPrefix(name, "profile "):
			why = "its section is written as in the config file; in this file it is [" + strings.TrimPrefix(name, "profile ") + "]"
		}
		if why != "" {
			left = append(left, Left{name, f.Path, line, why})
			continue
		}
		byID[x.id.Value] = append(byID[x.id.Value], len(pairs))
		pairs = append(pairs, Pair{Profile: name, AccessKeyID: x.id.Value, Secret: NewSecret(x.secret.Value), File: f.Path, Line: line})
	}
	for _, same := range byID {
		for _, i := range same {
			for _, k := range same {
				if k != i {
					pairs[i].Also = append(pairs[i].Also, pairs[k].Profile)
				}
			}
		}
	}
	return pairs, left, nil
}

// WithoutPairs plans to take the key pairs of profiles out of a credentials
// file. Every other byte stays.
func WithoutPairs(f *File, names []string) (*Change, error) {
	var edits []profiles.Edit
	for _, name := range names {
		for _, key := range []string{"aws_access_key_id", "aws_secret_access_key"} {
			edits = append(edits, profiles.Edit{Section: name, Key: key, Delete: true})
		}
	}
	return Plan("import", []Edits{{f, edits}})
}

// CSV reads a key file as the AWS console gives it: with the columns "Access
// key ID" and "Secret access key", and in some forms "User name", which then
// names the pair.
func CSV(f *File) ([]Pair, error) {
	fail := func(line int, why string) error {
		place := f.Path
		if line > 0 {
			place = fmt.Sprintf("%s:%d", f.Path, line)
		}
		return fmt.Errorf("cannot use %s: %s", place, why)
	}
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(f.Text, "\ufeff")))
	r.FieldsPerRecord = -1
	r.TrimLeadingSpace = true
	header, err := r.Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fail(0, "it is empty")
	case err != nil:
		return nil, fail(1, "it is no CSV file")
	}
	column := map[string]int{}
	for i, name := range header {
		column[strings.ToLower(strings.Join(strings.Fields(name), " "))] = i + 1
	}
	id, secret, user := column["access key id"], column["secret access key"], column["user name"]
	if id == 0 || secret == 0 {
		if column["password"] > 0 {
			return nil, withHint(fail(1, "it holds a console password and no access key"), "a password is for the console's sign-in page; make an access key for the user")
		}
		return nil, withHint(fail(1, "its first line names no access key"), "it is to begin with: Access key ID,Secret access key")
	}
	var pairs []Pair
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := r.FieldPos(0)
		if err != nil {
			var perr *csv.ParseError
			if errors.As(err, &perr) {
				line = perr.Line
			}
			return nil, fail(line, "it is no line of a CSV file") // the decoder's words could quote it
		}
		cell := func(i int) string {
			if i == 0 || i > len(row) {
				return ""
			}
			return strings.TrimSpace(row[i-1])
		}
		p := Pair{Profile: sanitise(cell(user)), AccessKeyID: cell(id), Secret: NewSecret(cell(secret)), File: f.Path, Line: line}
		switch {
		case p.AccessKeyID == "" && p.Secret.Reveal() == "":
			continue // a user that has a password alone
		case p.AccessKeyID == "" || p.Secret.Reveal() == "":
			return nil, fail(line, "half of the pair is missing")
		case strings.HasPrefix(p.AccessKeyID, "ASIA"):
			return nil, fail(line, "the keys are temporary")
		}
		pairs = append(pairs, p)
	}
	if len(pairs) == 0 {
		return nil, fail(0, "it holds no access key")
	}
	return pairs, nil
}

// Environment is the pair of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
func Environment(getenv func(string) string) (Pair, error) {
	p := Pair{AccessKeyID: getenv("AWS_ACCESS_KEY_ID"), Secret: NewSecret(getenv("AWS_SECRET_ACCESS_KEY"))}
	switch {
	case p.AccessKeyID == "" && p.Secret.Reveal() == "":
		return p, errors.New("cannot import from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")
	case p.AccessKeyID == "" || p.Secret.Reveal() == "":
		return p, errors.New("cannot import from the environment: one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is not set")
	case getenv("AWS_SESSION_TOKEN") != "" || strings.HasPrefix(p.AccessKeyID, "ASIA"):
		return p, errors.New("cannot import from the environment: the keys there are temporary, and the vault keeps long-lived ones")
	}
	return p, nil
}

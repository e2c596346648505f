package keyring

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ring "github.com/99designs/keyring"

	"keyfob/keystore/internal/wire"
)

const (
	foreignSecret = "CANARY/foreign+secret"
	foreignPass   = "CANARY passphrase of files"
)

// awsVaultFiles is a directory as aws-vault's file backend leaves it.
func awsVaultFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	kr, err := ring.Open(ring.Config{ServiceName: "aws-vault", AllowedBackends: []ring.BackendType{ring.FileBackend}, FileDir: dir,
		FilePasswordFunc: func(string) (string, error) { return foreignPass, nil }})
	if err != nil {
		t.Fatal(err)
	}
	pair := `{"AccessKeyID":"AKIA1","SecretAccessKey":"` + foreignSecret + `","SessionToken":"","Source":"","CanExpire":false,"Expires":"0001-01-01T00:00:00Z"}`
	for name, data := range map[string]string{
		"dev":        pair,
		"team/prod":  pair,
		"with space": pair,
		"temporary":  `{"AccessKeyID":"ASIA1","SecretAccessKey":"` + foreignSecret + `","SessionToken":"` + foreignSecret + `"}`,
		"garbage":    "no JSON " + foreignSecret,
		"sts.GetSessionToken,ZGV2,YXJuOmF3cw,1893456000": pair,
		"sts.AssumeRole,ZGV2,,1893456000":                pair,
		"session,ZGV2,,1893456000":                       pair,
		"session:dev:arn:aws:iam::1:mfa/a:1893456000":    pair,
		"dev session (61633665646639303539)":             pair,
		"oidc:https://d-1234567890.awsapps.com/start":    pair,
		"aws-vault,ZGV2,,1893456000":                     pair,
	} {
		if err := kr.Set(ring.Item{Key: name, Data: []byte(data), Label: "aws-vault (" + name + ")"}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func askForeign(op, backend, dir, key, pass string) wire.Response {
	return do(&wire.Request{Version: wire.Version, Op: op, Backend: backend, Key: key, Passphrase: []byte(pass), Foreign: &wire.Foreign{From: "aws-vault", Dir: dir}})
}

// TestForeignFiles reads what the real library has written, and gives out
// key pairs alone.
func TestForeignFiles(t *testing.T) {
	dir := awsVaultFiles(t)
	before := listing(t, dir)
	r := askForeign(wire.OpForeignNames, "file", dir, "", "")
	if r.Code != wire.CodeOK || strings.Join(r.Names, "|") != "dev|garbage|team/prod|temporary|with space" || len(r.Value) > 0 {
		t.Errorf("names: %+v", r)
	}
	for _, name := range []string{"dev", "team/prod", "with space"} {
		r := askForeign(wire.OpForeignPair, "file", dir, name, foreignPass)
		var p wire.Pair
		if err := json.Unmarshal(r.Value, &p); err != nil || p.AccessKeyID != "AKIA1" || p.SecretAccessKey != foreignSecret || p.Temporary {
			t.Errorf("%s: %s %s", name, r.Code, r.Message)
		}
	}
	for name, c := range map[string]struct{ dir, key, pass, code string }{
		"temporary keys":         {dir, "temporary", foreignPass, wire.CodeOK},
		"no pair":                {dir, "garbage", foreignPass, wire.CodeFailed},
		"a session":              {dir, "sts.GetSessionToken,ZGV2,YXJuOmF3cw,1893456000", foreignPass, wire.CodeRefused},
		"a token":                {dir, "oidc:https://d-1234567890.awsapps.com/start", foreignPass, wire.CodeRefused},
		"a file outside":         {dir, "../x", foreignPass, wire.CodeRefused},
		"the directory":          {dir, "..", foreignPass, wire.CodeRefused},
		"no name":                {dir, "", foreignPass, wire.CodeRefused},
		"nothing of the name":    {dir, "other", foreignPass, wire.CodeNotFound},
		"another passphrase":     {dir, "dev", "wrong", wire.CodeWrongPass},
		"a directory not there":  {filepath.Join(dir, "none"), "dev", foreignPass, wire.CodeAbsent},
		"a relative directory":   {"keys", "dev", foreignPass, wire.CodeRefused},
		"a file for a directory": {filepath.Join(dir, "dev"), "dev", foreignPass, wire.CodeFailed},
	} {
		r := askForeign(wire.OpForeignPair, "file", c.dir, c.key, c.pass)
		if r.Code != c.code || bytes.Contains(r.Value, []byte(foreignSecret)) || strings.Contains(r.Message, "CANARY") {
			t.Errorf("%s: %s %q %q", name, r.Code, r.Message, r.Value)
		}
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the files changed:\n%s\n%s", before, after)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory was made")
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range all {
		text, _ := os.ReadFile(filepath.Join(dir, f.Name()))
		info, _ := f.Info()
		b.WriteString(f.Name() + " " + info.ModTime().String() + " " + string(text) + "\n")
	}
	return b.String()
}

// TestForeignRefuses: another program, or a backend that is none, is not
// read; and the ordinary operations do not reach what is not keyfob's.
func TestForeignRefuses(t *testing.T) {
	for name, req := range map[string]wire.Request{
		"another program": {Op: wire.OpForeignNames, Backend: "file", Foreign: &wire.Foreign{From: "chrome", Dir: "/x"}},
		"no program":      {Op: wire.OpForeignNames, Backend: "file"},
		"no backend":      {Op: wire.OpForeignNames, Foreign: &wire.Foreign{From: "aws-vault"}},
		"the vault's":     {Op: wire.OpForeignNames, Backend: "passphrase", Foreign: &wire.Foreign{From: "aws-vault"}},
		"by get":          {Op: wire.OpGet, Backend: "file", Key: "dev", Foreign: &wire.Foreign{From: "aws-vault", Dir: "/x"}},
		"by delete":       {Op: wire.OpDelete, Backend: "file", Key: "dev", Foreign: &wire.Foreign{From: "aws-vault", Dir: "/x"}},
	} {
		req.Version = wire.Version
		if r := do(&req); r.Code != wire.CodeRefused {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	ring "github.com/99designs/keyring"

	"keyfob/keystore/internal/wire"
)

// What aws-vault keeps, and under which names: its own documentation
// (https://github.com/99designs/aws-vault/blob/master/USAGE.md) and what its
// versions 4 to 7 leave behind. A key pair is an item with the profile's
// name; sessions and Identity Center tokens have names of their own forms.
const awsVaultCollection = "awsvault" // of the Secret Service; versions before 5 had "aws-vault"

var awsVaultSessions = []*regexp.Regexp{
	regexp.MustCompile(`^[^,]+,[^,]+,[^,]*,[0-9]+$`),           // type,profile,device,expiry
	regexp.MustCompile(`^session:[^ ]+:[^ ]*:[^:]+$`),          // older
	regexp.MustCompile(`^.+ session \([0-9]+\)$`),              // older still
	regexp.MustCompile(`^oidc:`),                               // Identity Center tokens
	regexp.MustCompile(`^(sts\.[A-Za-z]+|session|aws-vault),`), // any other form of the first
}

// foreignBackends are those that aws-vault can be told to use.
var foreignBackends = map[ring.BackendType]bool{
	ring.KeychainBackend: true, ring.WinCredBackend: true, ring.SecretServiceBackend: true, ring.KWalletBackend: true,
	ring.PassBackend: true, ring.FileBackend: true, ring.KeyCtlBackend: true,
}

// isPair reports whether an item's name may be that of a key pair.
func isPair(name string) bool {
	if name == "" || len(name) > 1024 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") { // pass makes a path of it
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	for _, p := range awsVaultSessions {
		if p.MatchString(name) {
			return false
		}
	}
	return name[0] != '-'
}

// foreign reads from another program's keyring: the names of its key pairs,
// or one of them. It never writes, and gives out nothing that is no pair.
func foreign(req *wire.Request) wire.Response {
	f := req.Foreign
	switch {
	case f == nil || f.From != wire.AWSVault:
		return refuse("there is no such program whose keys could be read")
	case !foreignBackends[ring.BackendType(req.Backend)]:
		return refuse("there is no such backend")
	case f.Dir != "" && !filepath.IsAbs(f.Dir):
		return refuse("the directory is not absolute")
	case req.Op == wire.OpForeignPair && !isPair(req.Key):
		return refuse("that item is no key pair")
	}
	defer clear(req.Passphrase)
	watch := watchPrompts(req.Backend)
	resp, err := readForeign(req)
	if err != nil {
		code, message := classify(err, req.Backend, watch.dismissed())
		if req.Backend == string(ring.FileBackend) {
			code, message = classifyFile(err)
		}
		return wire.Response{Code: code, Message: message}
	}
	return resp
}

func readForeign(req *wire.Request) (wire.Response, error) {
	var last error = ring.ErrKeyNotFound
	found := map[string]bool{}
	for _, cfg := range awsVaultConfigs(req) {
		if cfg.FileDir != "" { // the library would make it
			if info, err := os.Stat(cfg.FileDir); err != nil {
				return wire.Response{}, err
			} else if !info.IsDir() {
				return wire.Response{}, fmt.Errorf("%s is no directory", cfg.FileDir)
			}
		}
		kr, err := ring.Open(cfg)
		if err != nil {
			return wire.Response{}, err
		}
		if req.Op == wire.OpForeignPair {
			item, err := kr.Get(req.Key)
			if errors.Is(err, ring.ErrKeyNotFound) {
				continue
			}
			if err != nil {
				return wire.Response{}, err
			}
			defer clear(item.Data)
			return pairOf(item.Data)
		}
		names, err := kr.Keys()
		if err != nil {
			return wire.Response{}, err
		}
		last = nil
		for _, n := range names {
			if isPair(n) {
				found[n] = true
			}
		}
	}
	if last != nil {
		return wire.Response{}, last
	}
	resp := wire.Response{Code: wire.CodeOK}
	size := 0
	for n := range found {
		resp.Names = append(resp.Names, n)
		size += len(n) + 16
	}
	if size > wire.MaxLine/2 {
		return wire.Response{}, errors.New("there are too many items")
	}
	sort.Strings(resp.Names)
	return resp, nil
}

// awsVaultConfigs are the places to look in, in order.
func awsVaultConfigs(req *wire.Request) []ring.Config {
	cfg := ring.Config{AllowedBackends: []ring.BackendType{ring.BackendType(req.Backend)}, ServiceName: wire.AWSVault}
	switch ring.BackendType(req.Backend) {
	case ring.KeychainBackend:
		if cfg.KeychainName = req.Foreign.Keychain; cfg.KeychainName == "" {
			cfg.KeychainName = wire.AWSVault
		}
		cfg.KeychainTrustApplication = true
	case ring.WinCredBackend:
		cfg.WinCredPrefix = wire.AWSVault
	case ring.KWalletBackend:
		cfg.KWalletAppID, cfg.KWalletFolder = wire.AWSVault, wire.AWSVault
	case ring.KeyCtlBackend:
		cfg.KeyCtlScope = "user"
	case ring.PassBackend:
		cfg.PassDir, cfg.PassPrefix = req.Foreign.Dir, req.Foreign.Keychain
	case ring.FileBackend:
		cfg.FileDir = req.Foreign.Dir
		pass := string(req.Passphrase)
		cfg.FilePasswordFunc = func(string) (string, error) { return pass, nil }
	case ring.SecretServiceBackend:
		if req.Foreign.Keychain != "" {
			cfg.LibSecretCollectionName = req.Foreign.Keychain
			break
		}
		older := cfg
		cfg.LibSecretCollectionName, older.LibSecretCollectionName = awsVaultCollection, wire.AWSVault
		return []ring.Config{cfg, older}
	}
	return []ring.Config{cfg}
}

// pairOf reads aws-vault's form of credentials, and hands on a long-lived
// pair alone.
func pairOf(data []byte) (wire.Response, error) {
	var c struct{ AccessKeyID, SecretAccessKey, SessionToken string }
	if json.Unmarshal(data, &c) != nil || c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return wire.Response{}, errors.New("the item holds no key pair") // the decoder's words could quote it
	}
	p := wire.Pair{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey}
	if c.SessionToken != "" {
		p.Temporary, p.SecretAccessKey = true, ""
	}
	value, err := json.Marshal(p)
	return wire.Response{Code: wire.CodeOK, Value: value}, err
}

// classifyFile reads the errors of the file backend: what is no error of a
// file is the passphrase, by which nothing else can go wrong.
func classifyFile(err error) (code, message string) {
	var pe *os.PathError
	switch {
	case errors.Is(err, ring.ErrKeyNotFound):
		return wire.CodeNotFound, ""
	case errors.Is(err, os.ErrNotExist):
		return wire.CodeAbsent, "there is no such directory"
	case errors.As(err, &pe):
		return wire.CodeFailed, oneLine(pe.Err.Error())
	case strings.Contains(err.Error(), "integrity check failed"), strings.Contains(err.Error(), "cipher: message authentication failed"):
		return wire.CodeWrongPass, ""
	}
	return wire.CodeFailed, "an item is damaged"
}

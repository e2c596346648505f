package keyring

import (
	"fmt"
	"regexp"
	"strings"

	ring "github.com/99designs/keyring"
	"golang.org/x/crypto/argon2"

	"keyfob/keystore/internal/wire"
)

// service is the name under which keyfob's items are kept.
const service = "keyfob"

// keyLength is what "derive" computes, in bytes.
const keyLength = 32

var keyName = regexp.MustCompile(`^vault-[0-9a-f]{32}$`)

// do does one operation. It never panics: a library that does is a failure.
func do(req *wire.Request) (resp wire.Response) {
	defer func() {
		if r := recover(); r != nil {
			resp = wire.Response{Code: wire.CodeFailed, Message: "the keyring gave an answer that makes no sense"}
		}
	}()
	if req.Version != wire.Version {
		return refuse(fmt.Sprintf("keyfobd speaks version %d of the protocol, not %d", req.Version, wire.Version))
	}
	switch req.Op {
	case wire.OpDerive:
		return deriveKey(req)
	case wire.OpForeignNames, wire.OpForeignPair:
		return foreign(req)
	case wire.OpGet, wire.OpSet, wire.OpDelete:
	default:
		return refuse("there is no such operation")
	}
	if !keyName.MatchString(req.Key) {
		return refuse("that item is not keyfob's")
	}
	watch := watchPrompts(req.Backend)
	resp, err := onKeyring(req)
	if err != nil {
		code, message := classify(err, req.Backend, watch.dismissed())
		return wire.Response{Code: code, Message: message}
	}
	return resp
}

func refuse(why string) wire.Response {
	return wire.Response{Code: wire.CodeRefused, Message: why}
}

// deriveKey computes Argon2id here, so that its memory is not the daemon's.
func deriveKey(req *wire.Request) wire.Response {
	if !req.KDF.Valid() || len(req.Passphrase) == 0 {
		return refuse("the parameters of the passphrase are out of bounds")
	}
	k := req.KDF
	key := argon2.IDKey(req.Passphrase, k.Salt, k.Time, k.Memory, k.Threads, keyLength)
	clear(req.Passphrase)
	return wire.Response{Code: wire.CodeOK, Value: key}
}

// onKeyring does one operation on the keyring of exactly the backend that
// the request names: the library falls to a weaker one when it may choose.
func onKeyring(req *wire.Request) (wire.Response, error) {
	collection := ""
	if req.Backend == string(ring.SecretServiceBackend) {
		if collection = req.Collection; collection == "" {
			collection = defaultCollection()
		}
	}
	cfg, ok := config(req.Backend, collection)
	if !ok {
		return refuse("there is no such backend"), nil
	}
	kr, err := ring.Open(cfg)
	if err != nil {
		return wire.Response{}, err
	}
	switch req.Op {
	case wire.OpSet:
		item := ring.Item{
			Key: req.Key, Data: req.Value, Label: "keyfob: master key of a vault",
			Description: "Opens the vault in which keyfob keeps AWS credentials",
			// Not to be copied to other machines: the vault is here.
			KeychainNotSynchronizable: true,
		}
		if err := kr.Set(item); err != nil {
			return wire.Response{}, err
		}
		return wire.Response{Code: wire.CodeOK, Collection: collection}, nil
	case wire.OpDelete:
		if err := kr.Remove(req.Key); err != nil {
			return wire.Response{}, err
		}
		return wire.Response{Code: wire.CodeOK}, nil
	}
	item, err := kr.Get(req.Key)
	if err != nil {
		return wire.Response{}, err
	}
	return wire.Response{Code: wire.CodeOK, Value: item.Data, Collection: collection}, nil
}

// config is the library's configuration for one backend.
func config(backend, collection string) (ring.Config, bool) {
	cfg := ring.Config{AllowedBackends: []ring.BackendType{ring.BackendType(backend)}, ServiceName: service}
	switch ring.BackendType(backend) {
	case ring.KeychainBackend:
		// This program alone may read the item without a question.
		cfg.KeychainTrustApplication = true
	case ring.WinCredBackend:
		cfg.WinCredPrefix = service
	case ring.SecretServiceBackend:
		cfg.LibSecretCollectionName = collection
	case ring.KWalletBackend:
		cfg.ServiceName, cfg.KWalletAppID, cfg.KWalletFolder = "kdewallet", service, service
	case ring.KeyCtlBackend:
		// Possessor and user may do everything, nobody else anything.
		// The default lacks the user, who could then not read it back.
		cfg.KeyCtlScope, cfg.KeyCtlPerm = "user", 0x3f3f0000
	case ring.PassBackend:
		cfg.PassPrefix = service
	default:
		return cfg, false
	}
	return cfg, true
}

// oneLine makes a library's error text fit for one line of a message.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}

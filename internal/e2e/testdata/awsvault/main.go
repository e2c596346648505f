// Command awsvault writes a key pair into a directory as aws-vault's file
// backend does: by the library that aws-vault uses. The pair and the
// passphrase come by standard input.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/99designs/keyring"
)

func main() {
	var in struct{ Dir, Passphrase, Name, AccessKeyID, SecretAccessKey string }
	err := json.NewDecoder(os.Stdin).Decode(&in)
	var kr keyring.Keyring
	if err == nil {
		kr, err = keyring.Open(keyring.Config{ServiceName: "aws-vault", AllowedBackends: []keyring.BackendType{keyring.FileBackend}, FileDir: in.Dir,
			FilePasswordFunc: func(string) (string, error) { return in.Passphrase, nil }})
	}
	var data []byte
	if err == nil {
		data, err = json.Marshal(map[string]string{"AccessKeyID": in.AccessKeyID, "SecretAccessKey": in.SecretAccessKey, "SessionToken": "", "ProviderName": ""})
	}
	if err == nil {
		err = kr.Set(keyring.Item{Key: in.Name, Data: data, Label: "aws-vault (" + in.Name + ")"})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

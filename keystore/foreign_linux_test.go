package keystore_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/godbus/dbus"

	"keyfob/internal/cred"
	"keyfob/keystore"
	"keyfob/keystore/keystoretest"
)

// awsVaultItem puts an item into a collection as 99designs/keyring does for
// aws-vault: the label and the attribute "profile" are its name, the secret is
// the library's own JSON.
func awsVaultItem(t *testing.T, conn *dbus.Conn, session, collection dbus.ObjectPath, name, data string) {
	t.Helper()
	item, err := json.Marshal(map[string]any{"Key": name, "Data": []byte(data), "Label": "aws-vault (" + name + ")"})
	if err != nil {
		t.Fatal(err)
	}
	secret := busSecret{session, []byte{}, item, "application/json"}
	properties := map[string]dbus.Variant{
		"org.freedesktop.Secret.Item.Label":      dbus.MakeVariant(name),
		"org.freedesktop.Secret.Item.Attributes": dbus.MakeVariant(map[string]string{"profile": name}),
	}
	var path, prompt dbus.ObjectPath
	if err := conn.Object("org.freedesktop.secrets", collection).Call("org.freedesktop.Secret.Collection.CreateItem", 0, properties, secret, true).Store(&path, &prompt); err != nil || path == "/" {
		t.Fatalf("cannot make %s: %v", name, err)
	}
}

type busSecret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

// TestForeignSecretService reads aws-vault's collection of a real Secret
// Service; the person's own collection is not looked at.
func TestForeignSecretService(t *testing.T) {
	s := keystoretest.StartSecretService(t)
	s.Use(t, "")
	service := s.Conn().Object("org.freedesktop.secrets", "/org/freedesktop/secrets")
	var out dbus.Variant
	var session dbus.ObjectPath
	if err := service.Call("org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&out, &session); err != nil {
		t.Fatal(err)
	}
	v := openVault(t, "", "")
	from := keystore.Foreign{From: keystore.FromAWSVault}
	if names, err := v.ForeignNames(t.Context(), from); err != nil || len(names) != 0 {
		t.Errorf("before there is a collection: %q, %v", names, err)
	}
	var collection dbus.ObjectPath
	label := map[string]dbus.Variant{"org.freedesktop.Secret.Collection.Label": dbus.MakeVariant("awsvault")}
	err := service.Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.CreateWithMasterPassword", 0, label,
		busSecret{session, []byte{}, []byte("its password"), "text/plain"}).Store(&collection)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "CANARY/secret+of+aws-vault"
	pair := `{"AccessKeyID":"AKIA1","SecretAccessKey":"` + secret + `"}`
	awsVaultItem(t, s.Conn(), session, collection, "dev", pair)
	awsVaultItem(t, s.Conn(), session, collection, "prod", pair)
	awsVaultItem(t, s.Conn(), session, collection, "sts.GetSessionToken,ZGV2,,1893456000", pair)
	awsVaultItem(t, s.Conn(), session, "/org/freedesktop/secrets/collection/login", "mail", pair)

	names, err := v.ForeignNames(t.Context(), from)
	if err != nil || strings.Join(names, " ") != "dev prod" {
		t.Errorf("%q, %v", names, err)
	}
	got, err := v.ForeignPair(t.Context(), from, "dev")
	if err != nil || got.AccessKeyID != "AKIA1" || got.SecretAccessKey.Reveal() != secret {
		t.Errorf("%v, %v", got.AccessKeyID, err)
	}
	for _, name := range []string{"mail", "nothing"} {
		if _, err := v.ForeignPair(t.Context(), from, name); !errors.Is(err, cred.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Locked, and nobody there to unlock it.
	var locked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := service.Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{collection}).Store(&locked, &prompt); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ForeignPair(t.Context(), from, "dev"); !errors.Is(err, keystore.ErrKeyringLocked) || cred.HintOf(err) == "" {
		t.Errorf("locked: %v", err)
	}
}

// TestForeignRequests: what can't be asked for is refused before a helper
// runs.
func TestForeignRequests(t *testing.T) {
	v := openVault(t, "", keystore.BackendPassphrase)
	for name, c := range map[string]struct {
		f    keystore.Foreign
		want error
	}{
		"another program":     {keystore.Foreign{From: "chrome"}, cred.ErrConfig},
		"another backend":     {keystore.Foreign{From: "aws-vault", Backend: "clay"}, keystore.ErrBackend},
		"another platform's":  {keystore.Foreign{From: "aws-vault", Backend: "wincred"}, keystore.ErrBackend},
		"files somewhere":     {keystore.Foreign{From: "aws-vault", Backend: "file"}, cred.ErrConfig},
		"files unsealed":      {keystore.Foreign{From: "aws-vault", Backend: "file", Dir: t.TempDir()}, keystore.ErrPassphraseNeeded},
		"without session bus": {keystore.Foreign{From: "aws-vault", Backend: "secret-service"}, keystore.ErrNoKeyring},
	} {
		if _, err := v.ForeignPair(t.Context(), c.f, "dev"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.ForeignNames(t.Context(), keystore.Foreign{From: "aws-vault", Backend: "file", Dir: t.TempDir() + "/none"}); !errors.Is(err, keystore.ErrNoKeyring) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := os.Stat("none"); err == nil {
		t.Error("a directory was made")
	}
}

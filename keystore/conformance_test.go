package keystore_test

import (
	"testing"

	"keyfob/internal/cred"
	"keyfob/keystore"
	"keyfob/keystore/keystoretest"
)

func TestMemoryConforms(t *testing.T) {
	t.Parallel()
	keystoretest.Run(t, func(*testing.T) cred.Store { return keystore.NewMemory() })
}

func TestPassphraseVaultConforms(t *testing.T) {
	t.Parallel()
	keystoretest.Run(t, func(t *testing.T) cred.Store { return passphraseVault(t, "") })
}

func BenchmarkGet(b *testing.B) {
	v := passphraseVault(b, "")
	put(b, v, "session/x", string(make([]byte, 1200)))
	for b.Loop() {
		if _, err := v.Get(b.Context(), "session/x"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	v := passphraseVault(b, "")
	s := cred.NewSecret(string(make([]byte, 1200)))
	for b.Loop() {
		if err := v.Put(b.Context(), "session/x", s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutParallel(b *testing.B) {
	v := passphraseVault(b, "")
	s := cred.NewSecret(string(make([]byte, 1200)))
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := v.Put(b.Context(), "session/x", s); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkUnlock is mostly Argon2id in the helper.
func BenchmarkUnlock(b *testing.B) {
	v := passphraseVault(b, "")
	for b.Loop() {
		v.Lock()
		if err := v.Unlock(b.Context(), cred.NewSecret(testPassphrase)); err != nil {
			b.Fatal(err)
		}
	}
}

package sso

import (
	"testing"

	"keyfob/internal/cred"
)

// BenchmarkFetch is a link whose sign-in is good: one call of the portal.
// BenchmarkPortal is that call alone.
func BenchmarkFetch(b *testing.B) {
	w, s := benchWorld(b)
	for b.Loop() {
		if _, err := s.Fetch(b.Context(), cred.Input{Profile: "x", Ask: w.person}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPortal(b *testing.B) {
	w, s := benchWorld(b)
	r, err := w.vault.Get(b.Context(), tokenPrefix+s.AskKey().String())
	if err != nil {
		b.Fatal(err)
	}
	rec, err := decodeRecord(r)
	if err != nil {
		b.Fatal(err)
	}
	src := s.(*source)
	c := &caller{signIn: &src.signIn}
	for b.Loop() {
		if _, err := c.roleCredentials(b.Context(), rec.access, dev, "ReadOnly"); err != nil {
			b.Fatal(err)
		}
	}
}

func benchWorld(b *testing.B) (*world, cred.SignInSource) {
	w := newWorld(b, people())
	s := w.source(w.link("corp", dev, "ReadOnly"))
	if _, err := s.Fetch(b.Context(), cred.Input{Profile: "x", Ask: w.person}); err != nil {
		b.Fatal(err)
	}
	return w, s
}

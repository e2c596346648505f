// Package fakeawstest starts a fake AWS for the length of a test.
package fakeawstest

import (
	"context"
	"testing"

	"keyfob/internal/fakeaws"
)

// Start returns an empty fake AWS and its URL, served on 127.0.0.1 until the
// test ends.
func Start(t testing.TB) (*fakeaws.Server, string) {
	t.Helper()
	s := fakeaws.New()
	url, stop, err := s.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s, url
}

// StartTLS is Start over TLS. The server's certificate is for localhost and
// the names given; ca is the authority to trust, in PEM.
func StartTLS(t testing.TB, names ...string) (s *fakeaws.Server, url string, ca []byte) {
	t.Helper()
	authority, err := fakeaws.NewCA(names...)
	if err != nil {
		t.Fatal(err)
	}
	s = fakeaws.New()
	url, stop, err := s.Listen(context.Background(), "127.0.0.1:0", authority)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s, url, authority.PEM
}

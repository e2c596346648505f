package fakeaws_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// One kept connection, one signed AssumeRole after the other.
func BenchmarkAssumeRole(b *testing.B) {
	s, url := fakeawstest.Start(b)
	id, secret := s.AddUser(fakeaws.UserSpec{})
	role := s.AddRole(fakeaws.RoleSpec{})
	form := "Action=AssumeRole&Version=2011-06-15&RoleSessionName=bench&RoleArn=" + role
	g := signed{"sts", "eu-west-1", time.Now(), credsOf(id, secret)}
	r := g.sign(&testing.T{}, newRequest("POST", url+"/", form), form)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader([]byte(form)))
		resp, err := tr.RoundTrip(r)
		if err != nil || resp.StatusCode != 200 {
			b.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

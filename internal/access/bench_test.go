package access

import (
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

func BenchmarkCheck(b *testing.B) {
	r, err := NewRules(RulesConfig{
		Owner:     "1000",
		Endpoints: []EndpointRule{{Kind: "imds", Listen: "127.0.0.1:9911", AllowPrograms: []Program{{Path: "/usr/bin/x"}}}, {Kind: "imds", Listen: "127.0.0.1:9912"}},
		Profiles:  []ProfileRule{{Name: "prod-*", AllowUsers: []string{"1000", "1007"}}, {Name: "dev"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	none, _ := NewRules(RulesConfig{Owner: "1000"})
	owner := peer.Caller{UID: "1000", Via: peer.ViaTCP, Exe: "/usr/bin/x"}
	for _, test := range []struct {
		name    string
		rules   *RuleSet
		profile string
		via     cred.Endpoint
	}{
		{"no rules", none, "prod-app", cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9912"}},
		{"users", r, "prod-app", cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9912"}},
		{"program", r, "prod-app", cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9911"}},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := test.rules.Check(owner, test.profile, test.via); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTokens(b *testing.B) {
	tokens := NewTokens([32]byte{1})
	bind := Binding{Endpoint: "127.0.0.1:9911", UID: "1000", Generation: 3}
	now := time.Now()
	token := tokens.Mint(now, time.Hour, bind)
	b.Run("mint", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			tokens.Mint(now, time.Hour, bind)
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tokens.Verify(token, now, bind); err != nil {
				b.Fatal(err)
			}
		}
	})
}

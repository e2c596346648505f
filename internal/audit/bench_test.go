package audit

import (
	"testing"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

func BenchmarkRecordRepeated(b *testing.B) {
	w := newWorld(b)
	l, _ := w.run()
	e := cred.Event{Kind: cred.EventHandOut, Profile: "app", Via: cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9911"},
		Caller: peer.Caller{UID: "1000", Via: peer.ViaTCP}, AccessKeyID: "ASIAEXAMPLE", AccountID: "123456789012"}
	l.Record(e)
	b.ReportAllocs()
	for b.Loop() {
		l.Record(e)
	}
}

func BenchmarkRecordParallel(b *testing.B) {
	w := newWorld(b)
	l, _ := w.run()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		e := cred.Event{Kind: cred.EventHandOut, Profile: "app", Via: cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9911"},
			Caller: peer.Caller{UID: "1000", Via: peer.ViaTCP}, AccessKeyID: "ASIAEXAMPLE", AccountID: "123456789012"}
		for pb.Next() {
			l.Record(e)
		}
	})
}

// BenchmarkRecordNew is the costly case: no two events are the same.
func BenchmarkRecordNew(b *testing.B) {
	w := newWorld(b)
	l, _ := w.run()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Record(handOut(i))
	}
}

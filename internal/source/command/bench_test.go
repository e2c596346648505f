//go:build unix

package command

import (
	"os/exec"
	"testing"
)

func BenchmarkRun(b *testing.B) {
	r := New(Config{})
	for b.Loop() {
		if _, err := r.Run(b.Context(), Program{Name: "x", Line: "echo '{}'"}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBare is what a program costs whoever runs it.
func BenchmarkBare(b *testing.B) {
	for b.Loop() {
		if _, err := exec.Command("/bin/sh", "-c", "echo '{}'").Output(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFailed ends with a look for what has left the group.
func BenchmarkFailed(b *testing.B) {
	r := New(Config{})
	for b.Loop() {
		if _, err := r.Run(b.Context(), Program{Name: "x", Line: "exit 1"}); err == nil {
			b.Fatal("no error")
		}
	}
}

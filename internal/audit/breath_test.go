package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadingPauses: whoever reads a long log, or verifies it, leaves room for
// others again and again.
func TestReadingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		if err := os.WriteFile(path, bytes.Repeat([]byte("{}\n"), 10*breathEvery), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, scan := range map[string]func(){
			"Read":   func() { _, _ = Read(path, Filter{}) },
			"Verify": func() { Verify(path, testKey) },
		} {
			begin := time.Now()
			scan()
			if rest := time.Since(begin); rest < 10*breath {
				t.Errorf("%s rests for %s", name, rest)
			}
		}
	})
}

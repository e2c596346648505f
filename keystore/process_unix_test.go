//go:build unix

package keystore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/cred"
	"keyfob/keystore"
)

// child is what a re-executed test binary does; it returns the exit code.
// Its directory, helper and argument come by KEYSTORE_TEST_*.
func child(role string) int {
	dir, arg := os.Getenv("KEYSTORE_TEST_DIR"), os.Getenv("KEYSTORE_TEST_ARG")
	fail := func(err error) int { fmt.Fprintln(os.Stderr, role, err); return 1 }
	v, err := keystore.Open(keystore.Config{Dir: dir, Backend: "passphrase", Helper: os.Getenv("KEYSTORE_TEST_HELPER")})
	if err != nil {
		return fail(err)
	}
	defer v.Close()
	ctx := context.Background()
	if err := v.Unlock(ctx, cred.NewSecret(testPassphrase)); err != nil || role == "unlock" {
		return fail(err)
	}
	switch role {
	case "write": // records until killed; says which are written
		var wg sync.WaitGroup
		var mu sync.Mutex // guards standard output's lines
		for w := range 4 {
			wg.Go(func() {
				for i := 0; i < 1000/4; i++ {
					name := fmt.Sprintf("w/%d/%d", w, i%20)
					if err := v.Put(ctx, name, cred.NewSecret(childValue(name, i))); err != nil {
						fail(err)
						return
					}
					mu.Lock()
					fmt.Println(name, i)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute) // to be killed, not to end
	case "share": // with another process on the same records
		for i := range 40 {
			name := fmt.Sprintf("s/%d", i%5)
			if err := v.Put(ctx, name, cred.NewSecret(childValue(name, i))); err != nil {
				return fail(err)
			}
			if got, err := v.Get(ctx, name); err != nil || !isChildValue(name, got.Reveal()) {
				return fail(fmt.Errorf("%s: %d bytes, %w", name, got.Len(), err))
			}
			if err := v.Put(ctx, "own/"+arg+"/"+strconv.Itoa(i), cred.NewSecret(arg)); err != nil {
				return fail(err)
			}
		}
	}
	return 0
}

// childValue is a long value from which a mixture of two could be told.
func childValue(name string, i int) string {
	return strings.Repeat(fmt.Sprintf("%s=%d;", name, i), 300)
}

func isChildValue(name, v string) bool {
	first, _, _ := strings.Cut(v, ";")
	n, ok := strings.CutPrefix(first, name+"=")
	i, err := strconv.Atoi(n)
	return ok && err == nil && v == childValue(name, i)
}

func startChild(t *testing.T, role, dir, arg string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "KEYSTORE_TEST_ROLE="+role, "KEYSTORE_TEST_DIR="+dir, "KEYSTORE_TEST_ARG="+arg, "KEYSTORE_TEST_HELPER="+helperPath)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestKillInTheMiddleOfWrites: kill -9 loses no record that Put has
// answered, leaves none half written, and the vault works on.
func TestKillInTheMiddleOfWrites(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "vault")
	passphraseVault(t, dir)
	for round := range 6 {
		cmd := startChild(t, "write", dir, "")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked := map[string]int{}
		killAt := 30 + round*137
		n := 0
		for s := bufio.NewScanner(out); s.Scan(); n++ {
			var name string
			var i int
			if _, err := fmt.Sscan(s.Text(), &name, &i); err != nil {
				break // a line that the kill cut off
			}
			acked[name] = i
			if n == killAt {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if n < killAt {
			t.Fatalf("round %d: only %d records were written", round, n)
		}
		v := passphraseVault(t, dir)
		if s := v.Status(); len(s.Corrupt) != 0 {
			t.Fatalf("round %d: %q", round, s.Corrupt)
		}
		names, err := v.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			got, err := v.Get(t.Context(), name)
			if err != nil || !isChildValue(name, got.Reveal()) {
				t.Errorf("round %d: %s is half written: %d bytes, %v", round, name, got.Len(), err)
			}
		}
		for name, i := range acked {
			got, err := v.Get(t.Context(), name)
			if err != nil {
				t.Errorf("round %d: %s was lost: %v", round, name, err)
				continue
			}
			// A later value may be there whose answer we did not see.
			first, _, _ := strings.Cut(got.Reveal(), ";")
			if j, _ := strconv.Atoi(strings.TrimPrefix(first, name+"=")); j < i {
				t.Errorf("round %d: %s has value %d, and %d was acknowledged", round, name, j, i)
			}
		}
		for name := range tree(t, dir) {
			if strings.HasPrefix(name, ".tmp-") {
				t.Errorf("round %d: %s was left", round, name)
			}
		}
		for _, name := range names { // the next round begins at value 0
			if err := v.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestProcessesShareAVault: several processes make one new vault's key and
// use it together.
func TestProcessesShareAVault(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "vault")
	var wg sync.WaitGroup
	const processes = 4
	for p := range processes {
		wg.Go(func() {
			if err := startChild(t, "share", dir, strconv.Itoa(p)).Run(); err != nil {
				t.Errorf("process %d: %v", p, err)
			}
		})
	}
	wg.Wait()
	v := passphraseVault(t, dir)
	names, err := v.List(t.Context(), "own/")
	if err != nil || len(names) != processes*40 {
		t.Errorf("%d records, %v; want %d", len(names), err, processes*40)
	}
	for _, n := range names {
		wantValue(t, v, n, strings.Split(n, "/")[1])
	}
	if s := v.Status(); len(s.Corrupt) != 0 {
		t.Errorf("Status: %+v", s)
	}
}

// TestReadersDoNotWait: while another process holds the lock alone, records
// are read, and a writer gives up when its context ends.
func TestReadersDoNotWait(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := passphraseVault(t, dir)
	put(t, v, "a", "1")
	lock := flock.New(filepath.Join(dir, "vault.lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	wantValue(t, v, "a", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := v.Put(ctx, "a", cred.NewSecret("2")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Put: %v", err)
	}
	wantValue(t, v, "a", "1")
}

// TestDamagedWhileReplaced: a record that is replaced between the moment when
// it was found damaged and the moment when it would be set aside stays.
func TestDamagedWhileReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := passphraseVault(t, dir)
	put(t, v, "a", "1")
	file := filepath.Join(dir, "a.rec")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lock := flock.New(filepath.Join(dir, "vault.lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	type result struct {
		s   cred.Secret
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := v.Get(t.Context(), "a")
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		t.Fatalf("Get did not wait for the lock: %v", r.err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.err != nil || r.s.Reveal() != "1" {
		t.Errorf("Get: %v", r.err)
	}
	if s := v.Status(); len(s.Corrupt) != 0 {
		t.Errorf("Status: %+v", s)
	}
}

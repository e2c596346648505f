package keystoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyfob/internal/cred"
)

// Run puts a Store through everything that users of cred.Store rely on. open
// returns an empty, unlocked store of its own for each call.
func Run(t *testing.T, open func(t *testing.T) cred.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s cred.Store)
	}{
		{"RoundTrip", testRoundTrip},
		{"Missing", testMissing},
		{"Replace", testReplace},
		{"Delete", testDelete},
		{"List", testList},
		{"Names", testNames},
		{"BadNames", testBadNames},
		{"Sizes", testSizes},
		{"EndedContext", testEndedContext},
		{"Independent", testIndependent},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func testRoundTrip(t *testing.T, s cred.Store) {
	ctx := t.Context()
	for _, v := range []string{"x", "line\nbreak", "\x00\xff\xfe", "", strings.Repeat("long ", 5000)} {
		mustPut(t, s, "key/dev", v)
		got, err := s.Get(ctx, "key/dev")
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		if got.Reveal() != v {
			t.Fatalf("Get gave %d bytes that are not the %d that were put", got.Len(), len(v))
		}
	}
}

func testMissing(t *testing.T, s cred.Store) {
	ctx := t.Context()
	if _, err := s.Get(ctx, "key/none"); !errors.Is(err, cred.ErrNotFound) {
		t.Errorf("Get of a missing record: %v, want ErrNotFound", err)
	}
	if err := s.Delete(ctx, "key/none"); !errors.Is(err, cred.ErrNotFound) {
		t.Errorf("Delete of a missing record: %v, want ErrNotFound", err)
	}
	if names, err := s.List(ctx, ""); err != nil || len(names) != 0 {
		t.Errorf("List of an empty store: %q, %v", names, err)
	}
}

func testReplace(t *testing.T, s cred.Store) {
	for i := range 5 {
		mustPut(t, s, "session/a", fmt.Sprint("value ", i))
	}
	mustGet(t, s, "session/a", "value 4")
	if names, _ := s.List(t.Context(), ""); !slices.Equal(names, []string{"session/a"}) {
		t.Errorf("List after replacing: %q", names)
	}
}

func testDelete(t *testing.T, s cred.Store) {
	ctx := t.Context()
	mustPut(t, s, "a", "1")
	mustPut(t, s, "b", "2")
	if err := s.Delete(ctx, "a"); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if _, err := s.Get(ctx, "a"); !errors.Is(err, cred.ErrNotFound) {
		t.Errorf("Get after Delete: %v, want ErrNotFound", err)
	}
	mustGet(t, s, "b", "2")
	mustPut(t, s, "a", "3")
	mustGet(t, s, "a", "3")
}

func testList(t *testing.T, s cred.Store) {
	for _, n := range []string{"session/b", "key/x", "session/a", "session", "key/X", "grant/1"} {
		mustPut(t, s, n, "v")
	}
	for prefix, want := range map[string][]string{
		"":          {"grant/1", "key/X", "key/x", "session", "session/a", "session/b"},
		"session/":  {"session/a", "session/b"},
		"key/":      {"key/X", "key/x"},
		"session/c": nil,
	} {
		got, err := s.List(t.Context(), prefix)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, %v; want %q", prefix, got, err, want)
		}
	}
}

// Names are the hard ones: each is a record of its own and comes back as it
// was.
var Names = []string{
	"a", "A", "key/dev", "key/Dev", "KEY/dev", "key/..", "../escape", "/", "//", "/abs", ".", "..", "key/a b",
	"con", "CON", "nul", "com1", "aux.txt", "lpt9", "key/con", "trailing.", "trailing ", " leading", "~", "~0", "-", "_", "+",
	"%2f", "%", "key%2fdev", "tab\there", "new\nline", "nul\x00byte", "\xff\xfe", "Grüße", "Gru\u0308ße", "日本語", "emoji 🔑",
	"a.rec", "x.corrupt-1", ".tmp-1", "vault.json", "vault.lock", `back\slash`, `a:b`, `a*b?"<>|`,
	strings.Repeat("n", 99), strings.Repeat("n", 100), strings.Repeat("n", 101), strings.Repeat("Ü", 100),
	strings.Repeat("long/", 200) + "1", strings.Repeat("long/", 200) + "2", strings.Repeat("m", 1024),
}

func testNames(t *testing.T, s cred.Store) {
	for i, n := range Names {
		mustPut(t, s, n, fmt.Sprint("value ", i))
	}
	for i, n := range Names {
		mustGet(t, s, n, fmt.Sprint("value ", i))
	}
	want := slices.Sorted(slices.Values(Names))
	if got, err := s.List(t.Context(), ""); err != nil || !slices.Equal(got, want) {
		t.Errorf("List = %q, %v; want %q", got, err, want)
	}
	for _, n := range Names {
		if err := s.Delete(t.Context(), n); err != nil {
			t.Errorf("Delete(%q): %v", n, err)
		}
	}
	if got, _ := s.List(t.Context(), ""); len(got) != 0 {
		t.Errorf("after deleting all: %q", got)
	}
}

func testBadNames(t *testing.T, s cred.Store) {
	for _, n := range []string{"", strings.Repeat("x", 1025)} {
		if err := s.Put(t.Context(), n, cred.NewSecret("v")); err == nil {
			t.Errorf("Put took a name of %d bytes", len(n))
		}
		if _, err := s.Get(t.Context(), n); err == nil || errors.Is(err, cred.ErrNotFound) {
			t.Errorf("Get of a name of %d bytes: %v", len(n), err)
		}
	}
}

func testSizes(t *testing.T, s cred.Store) {
	most := strings.Repeat("0123456789abcdef", 1<<16)
	mustPut(t, s, "big", most)
	mustGet(t, s, "big", most)
	if err := s.Put(t.Context(), "big", cred.NewSecret(most+"!")); err == nil {
		t.Error("Put took more than 1 MiB")
	}
	mustGet(t, s, "big", most)
}

func testEndedContext(t *testing.T, s cred.Store) {
	mustPut(t, s, "a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := s.Get(ctx, "a")
	_, listErr := s.List(ctx, "")
	for what, err := range map[string]error{
		"Get": getErr, "List": listErr, "Put": s.Put(ctx, "a", cred.NewSecret("2")), "Delete": s.Delete(ctx, "a"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: %v", what, err)
		}
	}
	mustGet(t, s, "a", "1")
}

// testIndependent: what was put and what was got are copies.
func testIndependent(t *testing.T, s cred.Store) {
	raw := []byte("first")
	secret := cred.SecretBytes(raw)
	if err := s.Put(t.Context(), "a", secret); err != nil {
		t.Fatal(err)
	}
	clear(raw)
	got, err := s.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "a", "other")
	if got.Reveal() != "first" || secret.Reveal() != "first" {
		t.Error("a secret changed after it was handed over")
	}
}

// testConcurrent: every reader sees some whole value of the record that it
// asked for.
func testConcurrent(t *testing.T, s cred.Store) {
	ctx := t.Context()
	value := func(rec, round int) string {
		return fmt.Sprintf("record %d ", rec) + string(bytes.Repeat([]byte{byte('a' + round%26)}, 100+round*13))
	}
	whole := func(rec int, v string) bool {
		rest, ok := strings.CutPrefix(v, fmt.Sprintf("record %d ", rec))
		return ok && len(rest) >= 100 && strings.Count(rest, rest[:1]) == len(rest)
	}
	const records, rounds = 4, 15
	for r := range records {
		mustPut(t, s, fmt.Sprint("c/", r), value(r, 0))
	}
	var wg sync.WaitGroup
	for r := range records {
		wg.Go(func() {
			for i := range rounds {
				if err := s.Put(ctx, fmt.Sprint("c/", r), cred.NewSecret(value(r, i))); err != nil {
					t.Errorf("Put: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range rounds * 20 {
				n := rand.IntN(records)
				got, err := s.Get(ctx, fmt.Sprint("c/", n))
				if err != nil || !whole(n, got.Reveal()) {
					t.Errorf("Get of record %d: %d bytes, %v", n, got.Len(), err)
					return
				}
			}
		})
		wg.Go(func() {
			for i := range rounds {
				name := fmt.Sprintf("d/%d/%d", r, i)
				if err := s.Put(ctx, name, cred.NewSecret("v")); err != nil {
					t.Errorf("Put: %v", err)
				}
				if _, err := s.List(ctx, "d/"); err != nil {
					t.Errorf("List: %v", err)
				}
				if err := s.Delete(ctx, name); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if names, err := s.List(ctx, ""); err != nil || len(names) != records {
		t.Errorf("in the end: %q, %v", names, err)
	}
}

func mustPut(t *testing.T, s cred.Store, name, value string) {
	t.Helper()
	if err := s.Put(t.Context(), name, cred.NewSecret(value)); err != nil {
		t.Fatalf("Put(%q): %v", name, err)
	}
}

func mustGet(t *testing.T, s cred.Store, name, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), name)
	if err != nil {
		t.Fatalf("Get(%q): %v", name, err)
	}
	if got.Reveal() != want {
		t.Fatalf("Get(%q) gave %d bytes, want %d others", name, got.Len(), len(want))
	}
}

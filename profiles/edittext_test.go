package profiles

import (
	"testing"

	"pgregory.net/rapid"
)

// EditText is many edits of EditFile in one: the settings that come out are
// the same, and what it refuses is refused there too.
func TestEditTextIsEditsInARow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawText(t)
		if _, err := readDocument(in); err != nil {
			return
		}
		var edits []Edit
		for range rapid.IntRange(1, 6).Draw(t, "n") {
			e := Edit{Section: rapid.SampledFrom(editSections).Draw(t, "section"), Key: rapid.SampledFrom(append(editKeys, "bad key")).Draw(t, "key")}
			if e.Delete = rapid.IntRange(0, 3).Draw(t, "delete") == 0; !e.Delete {
				e.Value = rapid.SampledFrom(append(editValues, "a # b", "x\n\n[y]")).Draw(t, "value")
			}
			edits = append(edits, e)
		}
		want, wantErr := in, error(nil)
		for _, e := range edits {
			if want, wantErr = applyEdit(want, e); wantErr != nil {
				break
			}
		}
		got, err := EditText(in, edits)
		if wantErr != nil {
			return // a value that a later edit or a deletion takes away again may pass
		}
		if err != nil {
			t.Fatalf("refused: %v\n%q\n%+v", err, in, edits)
		}
		for _, e := range edits {
			a, err := readDocument(got)
			if err != nil {
				t.Fatalf("%v\n%q", err, got)
			}
			b, _ := readDocument(want)
			section := b.effective(normalSection(e.Section))
			va, fa := a.last(a.effective(normalSection(e.Section)), e.Key)
			vb, fb := b.last(section, e.Key)
			if va != vb || fa != fb {
				t.Fatalf("%s %s is %q %v, by single edits %q %v\n%q\n%q\n%q\n%+v", e.Section, e.Key, va, fa, vb, fb, in, got, want, edits)
			}
		}
	})
}

func TestEditTextRefuses(t *testing.T) {
	for _, e := range []Edit{
		{Section: "new", Key: "x", Value: testSecret + " # b"}, {Section: "new", Key: "x", Value: "\n[a]\ny = 2"}, {Section: "new]\n[a", Key: "x", Value: "1"},
		{Section: "new", Key: "x y", Value: "1"}, {Section: "new", Key: "x", Value: "a\x00"}, {Section: "a", Key: "x", Value: "a # b"},
	} {
		if out, err := EditText("[a]\ny = 1\n", []Edit{{Section: "b", Key: "z", Value: "1"}, e}); err == nil {
			t.Errorf("%+v makes %q", e, out)
		}
	}
	if _, err := EditText("[a\n", []Edit{{Section: "b", Key: "z", Value: "1"}}); err == nil {
		t.Error("a broken text was edited")
	}
}

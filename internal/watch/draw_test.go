package watch

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"keyfob/internal/control"
)

var update = flag.Bool("update", false, "write the screens of testdata anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) string { return noon.Add(d).Format(time.RFC3339) }

func busy() *control.StatusResult {
	return &control.StatusResult{
		Version: "1.2.3", PID: 4711, UptimeSeconds: 3*3600 + 125,
		Keystore:  control.KeystoreStatus{Backend: "secret-service"},
		Endpoints: []control.EndpointStatus{{Kind: "imds", Listen: "169.254.169.254:80", Profile: "app"}, {Kind: "container", Listen: "127.0.0.1:9912"}},
		Sessions: []control.SessionStatus{
			{Profile: "app", AccountID: "123456789012", Fetched: at(-10 * time.Minute), Expiration: at(50 * time.Minute), NextRefresh: at(15 * time.Minute), Callers: 3},
			{Profile: "base", AccountID: "123456789012", Fetched: at(-11 * time.Hour), Expiration: at(time.Hour), NeedsPerson: true, EndsAt: at(time.Hour), Callers: 1},
			{Profile: "late", AccountID: "210987654321", Fetched: at(-58 * time.Minute), Expiration: at(2 * time.Minute), NextRefresh: at(-time.Second), LastError: "cannot reach STS: connection refused"},
			{Profile: "gone", AccountID: "210987654321", Fetched: at(-61 * time.Minute), Expiration: at(-time.Minute)},
			{Profile: "none", LastError: "cannot find credentials"},
		},
		Interactions: []control.InteractionStatus{
			{ID: "7f3a", Kind: "mfa", Profile: "base", Since: at(-12 * time.Second), Expires: at(9 * time.Minute), Waiting: 2},
			{ID: "91bc", Kind: "device", Profile: "corp", Since: at(-65 * time.Second), Expires: at(8 * time.Minute), URL: "https://example.awsapps.com/start/#/device", UserCode: "ABCD-EFGH"},
			{ID: "a001", Kind: "confirm", Profile: "prod", Since: at(-time.Second), Expires: at(59 * time.Second), Program: "/usr/bin/terraform", Waiting: 1},
		},
		Warnings: []string{"the session of base needs you before 13:00"},
	}
}

func TestScreens(t *testing.T) {
	time.Local = time.UTC
	quiet := &control.StatusResult{Version: "1.2.3", PID: 1, Keystore: control.KeystoreStatus{Backend: "passphrase", Locked: true}}
	many := busy()
	many.Interactions, many.Warnings = nil, nil
	many.Sessions = nil
	for i := range 40 {
		many.Sessions = append(many.Sessions, control.SessionStatus{Profile: fmt.Sprintf("p%02d", i), Fetched: at(-time.Hour), Expiration: at(time.Duration(i) * time.Minute), NextRefresh: at(time.Minute)})
	}
	long := busy()
	long.Sessions[0].Profile = "a-profile-with-a-name-that-nobody-would-want-to-type-twice"
	long.Sessions[1].Profile = "客户-生产"
	long.Interactions = long.Interactions[:1]
	broken := busy()
	broken.Interactions, broken.Sessions = nil, broken.Sessions[:1]
	broken.ReloadError = "/home/ann/.aws/config:7: no ="
	broken.Keystore.Error = "the keyring has not answered"
	for name, v := range map[string]View{
		"busy":     {Status: busy(), Width: 100, Height: 34, Cursor: 1},
		"ascii":    {Status: busy(), Width: 80, Height: 34, ASCII: true, Cursor: 99},
		"narrow":   {Status: busy(), Width: 44, Height: 34},
		"small":    {Status: many, Width: 80, Height: 12, Cursor: 20},
		"top":      {Status: many, Width: 80, Height: 12},
		"bottom":   {Status: many, Width: 80, Height: 12, Cursor: 39},
		"tiny":     {Status: many, Width: 20, Height: 3, Cursor: 5},
		"quiet":    {Status: quiet, Width: 80, Height: 10},
		"long":     {Status: long, Width: 90, Height: 26, Said: "answered"},
		"broken":   {Status: broken, Width: 90, Height: 16, Failed: "cannot reach keyfobd: connection refused"},
		"first":    {Width: 60, Height: 6},
		"coloured": {Status: busy(), Width: 100, Height: 34, Colour: true},
	} {
		t.Run(name, func(t *testing.T) {
			v.Now = noon
			got := strings.Join(Draw(v), "\n") + "\n"
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the screen is\n%s\nand was\n%s", got, want)
			}
		})
	}
}

// Whatever the daemon says: no line is too long, no screen too high, and
// nothing but our own colours reaches the terminal.
func TestScreensFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := busy()
		text := rapid.String()
		for i := range st.Sessions {
			st.Sessions[i].Profile = text.Draw(t, "profile")
			st.Sessions[i].LastError = text.Draw(t, "error")
			st.Sessions[i].Expiration = rapid.SampledFrom([]string{"", "soon", at(time.Hour), at(1000 * time.Hour)}).Draw(t, "expiration")
		}
		st.Interactions[0].URL = text.Draw(t, "url")
		st.Interactions[1].Program = text.Draw(t, "program") + "\x1b]0;x\a"
		st.Warnings = append(st.Warnings, text.Draw(t, "warning"))
		v := View{Status: st, Now: noon, Width: rapid.IntRange(0, 120).Draw(t, "width"), Height: rapid.IntRange(0, 60).Draw(t, "height"),
			Cursor: rapid.IntRange(-3, 20).Draw(t, "cursor"), Said: text.Draw(t, "said")}
		lines := Draw(v)
		if len(lines) > max(v.Height, 0) {
			t.Fatalf("%d lines for a height of %d", len(lines), v.Height)
		}
		for _, l := range lines {
			if n := cellsOf(l); n > v.Width {
				t.Fatalf("%q has %d cells of %d", l, n, v.Width)
			}
			for _, r := range l {
				if !shown(r) && r != utf8.RuneError {
					t.Fatalf("%q has %U in it", l, r)
				}
			}
		}
	})
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		share float64
		want  string
	}{{-1, "░░░░"}, {0, "░░░░"}, {0.5, "██░░"}, {1, "████"}, {7, "████"}, {0.28, "█▏░░"}, {0.99, "████"}, {0.95, "███▊"}} {
		full, rest := painter{}.bar(c.share, 4)
		if full+rest != c.want {
			t.Errorf("%v: %s, want %s", c.share, full+rest, c.want)
		}
	}
}

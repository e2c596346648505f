package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// exposition is what parse read: the value of each sample by its name and
// labels as written, and the type of each family.
type exposition struct {
	values map[string]float64
	labels map[string]map[string]string
	types  map[string]string
}

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// parse reads the text format 0.0.4 strictly: HELP, then TYPE, then all
// samples of a family, no family twice, no sample twice, counters in _total,
// nothing after the value, a line feed at the end.
func parse(b []byte) (*exposition, error) {
	x := &exposition{values: map[string]float64{}, labels: map[string]map[string]string{}, types: map[string]string{}}
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return nil, errors.New("no line feed at the end")
	}
	helped, family := "", ""
	for n, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		fail := func(why string) (*exposition, error) { return nil, fmt.Errorf("line %d: %s: %q", n+1, why, line) }
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, text, ok := strings.Cut(rest, " ")
			if !ok || text == "" || !metricName.MatchString(name) || x.types[name] != "" {
				return fail("bad HELP")
			}
			if strings.Contains(strings.NewReplacer(`\\`, "", `\n`, "").Replace(text), `\`) {
				return fail("bad escape")
			}
			helped = name
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if name != helped || x.types[name] != "" || kind != "counter" && kind != "gauge" {
				return fail("bad TYPE")
			}
			if (kind == "counter") != strings.HasSuffix(name, "_total") {
				return fail("a counter ends in _total, and nothing else does")
			}
			x.types[name], family = kind, name
			continue
		}
		i := strings.IndexAny(line, "{ ")
		if i < 0 || line[:i] != family {
			return fail("a sample outside its family")
		}
		rest, labels := line[i:], map[string]string{}
		if rest[0] == '{' {
			rest = rest[1:]
			for {
				name, after, ok := strings.Cut(rest, `="`)
				if !ok || !labelName.MatchString(name) {
					return fail("bad label")
				}
				if _, twice := labels[name]; twice {
					return fail("label twice")
				}
				var v strings.Builder
				for {
					if after == "" {
						return fail("value without an end")
					}
					c := after[0]
					after = after[1:]
					if c == '"' {
						break
					}
					if c == '\\' {
						if after == "" {
							return fail("bad escape")
						}
						switch after[0] {
						case '\\', '"':
							c = after[0]
						case 'n':
							c = '\n'
						default:
							return fail("bad escape")
						}
						after = after[1:]
					}
					v.WriteByte(c)
				}
				labels[name] = v.String()
				if strings.HasPrefix(after, ",") {
					rest = after[1:]
					continue
				}
				if !strings.HasPrefix(after, "}") {
					return fail("labels without an end")
				}
				rest = after[1:]
				break
			}
		}
		text, ok := strings.CutPrefix(rest, " ")
		v, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil || strings.ContainsAny(text, "_xX ") || math.IsNaN(v) || x.types[family] == "counter" && v < 0 {
			return fail("bad value")
		}
		key := strings.TrimSuffix(line, rest)
		if _, twice := x.values[key]; twice {
			return fail("sample twice")
		}
		x.values[key], x.labels[key] = v, labels
	}
	return x, nil
}

func full() (*Metrics, *State) {
	s := &State{
		Sessions: 3, ShortestLife: 1500 * time.Millisecond, Attempts: 1 << 60, Failures: 2, Joined: 4, Links: 5, Profiles: 6,
		Interactions: 7, Endpoints: Endpoints{IMDS: 1, Container: 2}, VaultLocked: true,
	}
	return New(Config{Version: "1.2.3", Started: time.UnixMilli(1700000000500), Collect: func() State { return *s }}), s
}

func TestExposition(t *testing.T) {
	m, s := full()
	b := m.Append(nil)
	x, err := parse(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	for key, want := range map[string]float64{
		"keyfob_sessions":                      3,
		"keyfob_session_shortest_life_seconds": 1.5,
		"keyfob_refresh_attempts_total":        1 << 60,
		"keyfob_refresh_failures_total":        2,
		"keyfob_refresh_joined_total":          4,
		"keyfob_links":                         5,
		"keyfob_profiles":                      6,
		"keyfob_interactions_waiting":          7,
		`keyfob_endpoints{kind="imds"}`:        1,
		`keyfob_endpoints{kind="container"}`:   2,
		"keyfob_vault_locked":                  1,
		"keyfob_audit_failing":                 0,
		`keyfob_handouts_total{exit="exec"}`:   0, // there from the start, so that rates can be built
		`keyfob_refusals_total{exit="other"}`:  0,
		"process_start_time_seconds":           1700000000.5,
	} {
		if v, ok := x.values[key]; !ok || v != want {
			t.Errorf("%s is %v, %v; want %v", key, v, ok, want)
		}
	}
	if !bytes.Contains(b, []byte("keyfob_refresh_attempts_total 1152921504606846976\n")) {
		t.Error("a large counter was rounded")
	}
	s.Sessions = 0
	if x, err = parse(m.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.values["keyfob_session_shortest_life_seconds"]; ok {
		t.Error("a life is told without a session")
	}
	if x, err = parse(New(Config{}).Append(nil)); err != nil || x.types["keyfob_sessions"] != "" {
		t.Errorf("without Collect: %v", err)
	}
}

func TestEscapes(t *testing.T) {
	version := "a\"b\\c\nd\xffe{},="
	x, err := parse(New(Config{Version: version}).Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for key, labels := range x.labels {
		if strings.HasPrefix(key, "keyfob_build_info") {
			found = true
			if want := strings.ToValidUTF8(version, "\uFFFD"); labels["version"] != want {
				t.Errorf("version is %q, want %q", labels["version"], want)
			}
		}
	}
	if !found {
		t.Error("no build info")
	}
	w := &writer{}
	w.family("x", "gauge", "a\\b\nc")
	if got := string(w.b); got != "# HELP x a\\\\b\\nc\n# TYPE x gauge\n" {
		t.Errorf("%q", got)
	}
}

type kept struct{ events []cred.Event }

func (k *kept) Record(e cred.Event) { k.events = append(k.events, e) }

// TestNoNames: whatever an event holds, no word of it gets into the
// exposition.
func TestNoNames(t *testing.T) {
	m, _ := full()
	next := &kept{}
	r := m.Recorder(next)
	for _, via := range []string{"imds", "imds", "credential-process", "canary-kind"} {
		r.Record(cred.Event{
			Kind: cred.EventHandOut, Profile: "canary-profile", Via: cred.Endpoint{Kind: via, Listen: "canary-listen"}, Grant: "canary-grant",
			Caller:      peer.Caller{UID: "canary-uid", Exe: "canary-program"},
			AccessKeyID: "canary-key", AccountID: "canary-account", Reason: "canary-reason",
		})
	}
	r.Record(cred.Event{Kind: cred.EventRefusal, Via: cred.Endpoint{Kind: "container"}})
	m.Recorder(nil).Record(cred.Event{Kind: cred.EventRefusal, Via: cred.Endpoint{Kind: "container"}})
	if len(next.events) != 5 {
		t.Errorf("%d events were passed on, want 5", len(next.events))
	}
	b := m.Append(nil)
	if bytes.Contains(b, []byte("canary")) {
		t.Errorf("a name in the exposition:\n%s", b)
	}
	x, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]float64{
		`keyfob_handouts_total{exit="imds"}`:               2,
		`keyfob_handouts_total{exit="credential-process"}`: 1,
		`keyfob_handouts_total{exit="other"}`:              1,
		`keyfob_refusals_total{exit="container"}`:          2,
		`keyfob_refusals_total{exit="imds"}`:               0,
	} {
		if x.values[key] != want {
			t.Errorf("%s is %v, want %v", key, x.values[key], want)
		}
	}
	allowed := map[string]bool{"exit": true, "kind": true, "version": true, "goversion": true, "os": true, "arch": true}
	for key, labels := range x.labels {
		for name := range labels {
			if !allowed[name] {
				t.Errorf("%s has a label that is not on the list", key)
			}
		}
	}
}

func TestPromtoolAgrees(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (package prometheus)")
	}
	m, _ := full()
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(m.Append(nil))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := New(Config{}).Recorder(nil)
	e := cred.Event{Kind: cred.EventHandOut, Via: cred.Endpoint{Kind: cred.ViaEnv}}
	b.ReportAllocs()
	for b.Loop() {
		r.Record(e)
	}
}

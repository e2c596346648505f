//go:build !windows

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// leftovers fails for what killed daemons left behind: temporary files from
// before the last kill, records that were set aside.
func (f *force) leftovers() {
	f.t.Helper()
	f.mu.Lock()
	var last time.Time
	if n := len(f.deaths); n > 0 {
		last = f.deaths[n-1].at
	}
	f.mu.Unlock()
	err := filepath.WalkDir(f.path("data"), func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // gone meanwhile
			}
			return err
		}
		if strings.Contains(e.Name(), ".corrupt-") {
			f.t.Errorf("%s was set aside", p)
		}
		if st, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), ".") && e.Type().IsRegular() && st.ModTime().Before(last) {
			f.t.Errorf("a killed daemon's %s is still there", p)
		}
		return nil
	})
	if err != nil {
		f.t.Error(err)
	}
}

// judge looks at everything that happened, after the callers have ended.
func (f *force) judge(kills int) {
	t := f.t
	for pids, n := range f.crowd {
		t.Errorf("the daemons %s were alive together, seen %d times", pids, n)
	}
	latest := map[string]string{} // profile to its last session
	for profile, role := range f.role {
		if all := f.ledger.of(role); len(all) > 0 {
			latest[profile] = all[len(all)-1].id
		}
	}
	type tally struct{ good, refused, down int }
	during := func(from, to time.Time) bool {
		return slices.ContainsFunc(f.down, func(w window) bool { return w.meets(from, to) })
	}
	byKind := map[string]*tally{}
	for _, k := range forceKinds {
		byKind[k] = &tally{}
	}
	for _, a := range f.answers {
		n := byKind[a.Kind]
		isDown := during(a.Asked, a.Got)
		switch {
		case a.Err == "":
			n.good++
			if err := f.ledger.wrong(a, f.role[a.Profile]); err != nil {
				t.Error(err)
			}
			if !f.quiet.from.IsZero() && a.Asked.After(f.quiet.from) && a.ID != latest[a.Profile] {
				t.Errorf("%s asked at %s and got %s, the session is %s", a.Kind, clock(a.Asked), a.ID, latest[a.Profile])
			}
		case a.Status == 401 && strings.HasPrefix(a.Kind, "IMDS") && (isDown || during(a.Since, a.Since)):
			// While the vault is not open yet a temporary key serves: tokens
			// of before are refused as long, and those of that time later.
			n.refused++
		case !isDown:
			t.Errorf("%s asked at %s, when the daemon was up, and failed at %s: %s", a.Kind, clock(a.Asked), clock(a.Got), a.Err)
		case a.Kind == byProcess:
			n.down++
			if strings.HasPrefix(a.Err, notClean) || a.Status != 1 {
				t.Errorf("%s: exit %d: %s", a.Kind, a.Status, a.Err)
			}
		default:
			n.down++
			if a.Status != 0 && a.Status != 503 {
				t.Errorf("%s: %s", a.Kind, a.Err)
			}
		}
	}
	for _, k := range forceKinds {
		t.Logf("%-24s %5d credentials, %4d errors while no daemon was up, %3d refused tokens", k, byKind[k].good, byKind[k].down, byKind[k].refused)
		if byKind[k].good < kills/2 {
			t.Errorf("only %d credentials for %s, the test proves nothing", byKind[k].good, k)
		}
	}
	f.judgeCalls()

	if got := f.run(nil, "grant", "list"); strings.Contains(got.out, "deploy") || got.code != 0 {
		t.Errorf("the grant of exec outlives its program: %s%s", got.out, got.err)
	}
	f.leftovers()
}

// judgeCalls compares the calls that AWS got with what lifetimes require: a
// session is replaced early only if a kill came before it was in the vault.
func (f *force) judgeCalls() {
	t := f.t
	if n := f.aws.Count("GetSessionToken"); n != 1 {
		t.Errorf("%d GetSessionToken calls, each with a code; one was needed", n)
	}
	lost := 0
	for role := range f.file {
		all := f.ledger.of(role)
		for i := 1; i < len(all); i++ {
			s, next := all[i-1], all[i]
			if !f.quiet.from.IsZero() && next.at.After(f.quiet.from) {
				t.Errorf("AssumeRole of %s at %s, although its session lasts to %s", role, clock(next.at), clock(s.expires))
			}
			// Due in the middle of a life that AWS tells in whole seconds,
			// and a tenth earlier by jitter.
			if next.at.Sub(s.at) >= (forceLife-time.Second)*45/100 {
				continue
			}
			unsaved := slices.ContainsFunc(f.deaths, func(d death) bool {
				return d.at.After(s.at) && d.at.Before(next.at) && d.at.Before(s.at.Add(forceSave)) && (d.late || d.saved[role].Before(s.at.Add(-tick)))
			})
			if !unsaved {
				t.Errorf("AssumeRole of %s at %s and again at %s, although the first was or should have been in the vault at every kill between", role, clock(s.at), clock(next.at))
			}
			lost++
		}
		t.Logf("%d sessions of %s", len(all), role)
		if len(all) < 3 {
			t.Errorf("only %d sessions of %s, the test proves nothing of refreshes", len(all), role)
		}
	}
	t.Logf("%d sessions were lost because a kill came between AWS's answer and the vault", lost)
}

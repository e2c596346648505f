package cli

import (
	"context"
	"strings"

	"keyfob/internal/control"
)

// namesDataDir: by a flag or a variable.
func (a *app) namesDataDir() bool { return a.flags.DataDir != "" || a.getenv("KEYFOB_DATA_DIR") != "" }

// decidesAtStart reports whether flags are given that a daemon takes at its
// start alone.
func (a *app) decidesAtStart() bool {
	f := a.flags
	return a.namesDataDir() || f.ProfilesFile != "" || f.Keystore != "" || f.IMDS != "" || f.Container != ""
}

// nothingKept is the refusal of a daemon with another keystore than a flag
// names, that was started on demand and has no vault yet: another can take its
// place.
type nothingKept struct{ error }

func (e nothingKept) Unwrap() error { return e.error }

// agrees refuses a running daemon that has something else than a flag names:
// the command would seem to have done what it did not. The data directory
// counts by its variable too: keys must not go where nobody looks for them.
// What a daemon does not tell is not judged.
func (a *app) agrees(ctx context.Context, client *control.Client, v control.VersionResult) error {
	if !a.decidesAtStart() {
		return nil
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	f := a.flags
	if a.namesDataDir() && v.DataDir != "" && v.DataDir != s.DataDir {
		return failure("cannot use the data directory "+s.DataDir+": the running daemon has "+v.DataDir, "keyfob stop ends it; or another --socket for another daemon")
	}
	refuse := func(flag, want, has string) error {
		return failure("cannot use "+flag+" "+want+": the running daemon has "+has, "keyfob stop")
	}
	if f.ProfilesFile != "" && v.ProfilesFile != "" && v.ProfilesFile != s.ProfilesFile {
		return refuse("--profiles-file", s.ProfilesFile, v.ProfilesFile)
	}
	if f.Keystore == "" && f.IMDS == "" && f.Container == "" {
		return nil
	}
	var st control.StatusResult
	if err := client.Call(ctx, control.MethodStatus, control.Empty{}, &st, nil); err != nil {
		return err
	}
	if f.Keystore != "" && f.Keystore != "auto" && st.Keystore.Backend != "" && f.Keystore != st.Keystore.Backend {
		err := refuse("--keystore", f.Keystore, st.Keystore.Backend)
		if v.OnDemand && st.Keystore.New && st.Keystore.Locked && a.mayStart() {
			return nothingKept{err}
		}
		return err
	}
	for _, e := range []struct{ flag, kind, want string }{{"--imds", "imds", f.IMDS}, {"--container", "container", f.Container}} {
		if e.want == "" {
			continue
		}
		var has []string
		found := false
		for _, listens := range st.Endpoints {
			if listens.Kind == e.kind {
				has = append(has, listens.Listen)
				found = found || sameAddress(e.want, listens.Listen)
			}
		}
		if !found {
			has := strings.Join(has, ", ")
			if has == "" {
				has = "no such endpoint"
			}
			return refuse(e.flag, e.want, has)
		}
	}
	return nil
}

// sameAddress compares an address as it was asked for with one that is
// listened on: port 0 asks for any.
func sameAddress(want, listens string) bool {
	cut := func(s string) (host, port string) {
		i := strings.LastIndexByte(s, ':')
		if i < 0 {
			return s, ""
		}
		host = strings.ToLower(strings.Trim(s[:i], "[]"))
		if host == "localhost" {
			host = "127.0.0.1"
		}
		return host, s[i+1:]
	}
	wantHost, wantPort := cut(want)
	host, port := cut(listens)
	return host == wantHost && (port == wantPort || wantPort == "0")
}

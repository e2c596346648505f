//go:build !windows

package daemon

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const (
	aliceARN    = "arn:aws:iam::111122223333:user/alice"
	aliceSerial = "arn:aws:iam::111122223333:mfa/alice"
)

// opsWorld is a world whose AWS has a user alice with a device, and a role
// app that she may assume. Nothing of it is in the vault yet.
type opsWorld struct {
	*world
	aws        *fakeaws.Server
	id, secret string
}

func newOpsWorld(t *testing.T, old time.Duration) *opsWorld {
	w := &opsWorld{world: newWorld(t)}
	var url string
	w.aws, url = fakeawstest.Start(t)
	for i, kv := range w.env {
		if strings.HasPrefix(kv, "AWS_ENDPOINT_URL=") {
			w.env[i] = "AWS_ENDPOINT_URL=" + url
		}
	}
	w.sts.URL = url
	w.aws.SetClock(-old)
	w.id, w.secret = w.aws.AddUser(fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{Serial: aliceSerial}}})
	w.aws.SetClock(0)
	w.aws.AddRole(fakeaws.RoleSpec{Name: "app", Account: "222222222222"})
	w.write(".aws/config", "[profile dev]\nregion = eu-central-1\n\n[profile prod]\nregion = eu-central-1\n\n"+
		"[profile app]\nregion = eu-west-1\nsource_profile = dev\nrole_arn = arn:aws:iam::222222222222:role/app\nexternal_id = e1\n\n"+
		"[profile empty]\noutput = json\n")
	w.write(".aws/credentials", "")
	return w
}

// add puts alice's keys into the vault for profiles.
func (w *opsWorld) add(profiles ...string) {
	w.t.Helper()
	for _, p := range profiles {
		w.must(control.MethodAdd, control.AddParams{Context: w.context(p), Profile: p, AccessKeyID: w.id, SecretAccessKey: w.secret}, nil)
	}
}

func (w *opsWorld) rotate(p control.RotateParams) (out control.RotateResult, notices []string, err error) {
	w.t.Helper()
	err = w.asking(control.MethodRotate, p, &out, func(e control.Event) (*control.Answer, error) {
		if e.Prompt != nil {
			return &control.Answer{Value: w.aws.MFACode(e.Prompt.Serial)}, nil
		}
		notices = append(notices, e.Notice)
		return nil, nil
	})
	return out, notices, err
}

// keyOf is the id of the key that signs for a profile.
func (w *opsWorld) keyOf(profile string) string {
	w.t.Helper()
	w.aws.ResetCalls()
	var out control.WhoamiResult
	w.must(control.MethodWhoami, control.ProfileParams{Context: w.context(profile)}, &out)
	if out.ARN != aliceARN {
		w.t.Errorf("%s is %s", profile, out.ARN)
	}
	for _, c := range w.aws.Calls("ListAccessKeys") {
		if c.Status == 200 {
			return c.AccessKey
		}
	}
	return ""
}

func mustFail(t *testing.T, err error, code control.Code, parts ...string) {
	t.Helper()
	e, ok := err.(*control.Error)
	if !ok || e.Code != code {
		t.Fatalf("%#v instead of %s %q", err, code, parts)
	}
	for _, p := range parts {
		if !strings.Contains(e.Message+"\n"+e.Hint, p) {
			t.Errorf("%q is not in %q, hint %q", p, e.Message, e.Hint)
		}
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	w := newOpsWorld(t, 100*24*time.Hour)
	w.write(".aws/credentials", "[left]\naws_access_key_id = "+w.id+"\naws_secret_access_key = CANARY\n")
	w.start()
	w.add("dev", "prod")

	// Who has nothing to rotate is told why.
	for name, want := range map[string][]string{
		"left":  {"cannot rotate the keys of left: they stand in " + w.path(".aws/credentials") + ":2", "keyfob import"},
		"empty": {"cannot find credentials for profile empty", "keyfob add empty"},
	} {
		_, _, err := w.rotate(control.RotateParams{Context: w.context(name)})
		mustFail(t, err, control.CodeFailed, want...)
	}
	_, _, err := w.rotate(control.RotateParams{Context: w.context("nobody")})
	mustFail(t, err, control.CodeUnknownProfile)
	_, _, err = w.rotate(control.RotateParams{Context: w.context("dev"), Due: -1})
	mustFail(t, err, control.CodeUsage)

	all := control.RotateParams{Context: w.context(""), All: true, Due: int64((101 * 24 * time.Hour).Seconds())}
	out, _, err := w.rotate(all)
	if err != nil || len(out.Keys) != 1 || !strings.HasPrefix(out.Keys[0].Skipped, "not due: it was made on ") || out.Keys[0].New != "" {
		t.Fatalf("%+v %v", out, err)
	}

	// By the role's profile the pair below it is meant.
	out, notices, err := w.rotate(control.RotateParams{Context: w.context("app")})
	if err != nil || len(out.Keys) != 1 {
		t.Fatalf("%+v %v", out, err)
	}
	k := out.Keys[0]
	if k.Profile != "dev" || !slices.Equal(k.Also, []string{"prod"}) || k.User != aliceARN || k.Old != w.id || k.New == "" || k.New == w.id || k.Resumed || k.Error != "" {
		t.Errorf("%+v", k)
	}
	if want := w.path(".aws/credentials") + ":2 has the old key " + w.id + " too, which no longer works: remove it there"; !slices.Equal(k.Warnings, []string{want}) {
		t.Errorf("%q", k.Warnings)
	}
	if len(notices) < 4 || !strings.HasPrefix(notices[0], "made the access key "+k.New) {
		t.Errorf("%q", notices)
	}
	for _, profile := range []string{"dev", "prod"} {
		if got := w.keyOf(profile); got != k.New {
			t.Errorf("%s is signed by %s", profile, got)
		}
	}
	if !strings.Contains(w.log.String(), "deleted the access key "+w.id) || strings.Contains(w.log.String(), w.secret) {
		t.Error("the log does not tell of it, or tells too much")
	}
	all.Due = int64((24 * time.Hour).Seconds())
	if out, _, err = w.rotate(all); err != nil || len(out.Keys) != 1 || out.Keys[0].Skipped == "" {
		t.Errorf("%+v %v", out, err)
	}
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("app")}, nil)

	// A locked vault needs a person.
	w.must(control.MethodLock, nil, nil)
	_, _, err = w.rotate(control.RotateParams{Context: w.context("dev")})
	mustFail(t, err, control.CodeInteraction, "keyfob unlock")
}

// TestRotateKilled: kill -9 while each call of AWS is under way, which is
// done all the same once the caller has gone.
func TestRotateKilled(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"CreateAccessKey", "GetCallerIdentity", "UpdateAccessKey", "DeleteAccessKey"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			w := newOpsWorld(t, 0)
			w.start()
			w.add("dev", "prod")
			w.aws.ResetCalls()
			after := 0
			if action == "GetCallerIdentity" { // the new key's
				after = 1
			}
			w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Action: action, After: after, Count: 1})
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _, _ = w.rotate(control.RotateParams{Context: w.context("dev")})
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			w.eventually(action+" is under way", func() bool {
				for _, c := range w.aws.Calls(action) {
					if !c.Done {
						return true
					}
				}
				return ctx.Err() != nil
			})
			_, _, err := w.rotate(control.RotateParams{Context: w.context("prod")})
			mustFail(t, err, control.CodeUnavailable, "another rotation is under way")
			killed := w.done
			w.signal(syscall.SIGKILL)
			<-killed
			<-done
			w.start()
			w.must(control.MethodWhoami, control.ProfileParams{Context: w.context("dev")}, nil)
			w.must(control.MethodWhoami, control.ProfileParams{Context: w.context("prod")}, nil)
			if unfinished := w.doctor(control.DoctorParams{Context: control.Context{Env: w.context("").Env}, Offline: true}); find(unfinished, "rotation.unfinished") == nil {
				t.Error("the doctor does not see it")
			}
			out, _, err := w.rotate(control.RotateParams{Context: control.Context{Env: w.context("").Env}, All: true, Due: 3600})
			if err != nil || len(out.Keys) != 1 || out.Keys[0].Error != "" || !out.Keys[0].Resumed || out.Keys[0].Old != w.id {
				t.Fatalf("%+v %v", out, err)
			}
			id := out.Keys[0].New
			if a, b := w.keyOf("dev"), w.keyOf("prod"); a != id || b != id || id == w.id {
				t.Errorf("dev has %s, prod %s, the new one is %s", a, b, id)
			}
			if more, _, err := w.rotate(control.RotateParams{Context: w.context("dev"), Due: 3600}); err != nil || more.Keys[0].Skipped == "" {
				t.Errorf("%+v %v", more, err) // had there been a second key it would be refused
			}
			if w.aws.Count("ListAccessKeys") == 0 {
				t.Error("nobody looked")
			}
		})
	}
}

// TestRotateWithCode: the device stands in the role's profile alone, and
// alice's policy lets her bare keys do nothing.
func TestRotateWithCode(t *testing.T) {
	t.Parallel()
	w := newOpsWorld(t, 0)
	w.write(".aws/config", w.read(".aws/config")+"[profile coded]\nregion = eu-west-1\nsource_profile = dev\nrole_arn = arn:aws:iam::222222222222:role/app\nmfa_serial = "+aliceSerial+"\n")
	w.start()
	w.add("dev")
	bare := w.id
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Action: "ListAccessKeys", Status: 403, Code: "AccessDenied", Message: "with an explicit deny in an identity-based policy", Count: 1})
	_, _, err := w.rotate(control.RotateParams{Context: w.context("dev")})
	mustFail(t, err, control.CodeInteraction)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Action: "ListAccessKeys", Status: 403, Code: "AccessDenied", Message: "with an explicit deny in an identity-based policy", Count: 1})
	ask := w.context("dev")
	ask.MayAsk = true
	out, notices, err := w.rotate(control.RotateParams{Context: ask})
	if err != nil || out.Keys[0].New == "" || out.Keys[0].Old != bare || !slices.ContainsFunc(notices, func(n string) bool {
		return strings.HasPrefix(n, "AWS refuses that to the bare keys: trying with an MFA code of arn:")
	}) {
		t.Fatalf("%+v %q %v", out, notices, err)
	}
	if ws := out.Keys[0].Warnings; len(ws) != 1 || !strings.Contains(ws[0], "needs an MFA code: keyfob login coded") {
		t.Errorf("%q", ws)
	}
}

func (w *opsWorld) doctor(p control.DoctorParams) []control.Check {
	w.t.Helper()
	var out control.DoctorResult
	begun := time.Now()
	w.must(control.MethodDoctor, p, &out)
	if d := time.Since(begun); d > 10*time.Second {
		w.t.Errorf("the doctor took %s", d)
	}
	last := -1
	order := []string{"environment", groupFiles, groupVault, groupDaemon, groupEndpoints, groupNetwork, groupProfile}
	for _, k := range out.Checks {
		at := slices.Index(order, k.Group)
		if at < last || k.ID == "" || k.Message == "" || strings.Contains(k.Message, "\n") || !slices.Contains([]string{control.CheckOK, control.CheckWarning, control.CheckFailed, control.CheckSkipped}, k.State) {
			w.t.Errorf("%+v", k)
		}
		last = at
	}
	return out.Checks
}

// find is the first check of an id, the worst before the others.
func find(all []control.Check, id string) *control.Check {
	for _, state := range []string{control.CheckFailed, control.CheckWarning, control.CheckSkipped, control.CheckOK} {
		for i := range all {
			if all[i].ID == id && all[i].State == state {
				return &all[i]
			}
		}
	}
	return nil
}

func wantCheck(t *testing.T, all []control.Check, id, state string, parts ...string) control.Check {
	t.Helper()
	k := find(all, id)
	if k == nil || k.State != state {
		t.Errorf("%s is %+v instead of %s", id, k, state)
		return control.Check{}
	}
	for _, p := range parts {
		if !strings.Contains(k.Message+"\n"+k.Fix+"\n"+k.Hint, p) {
			t.Errorf("%q is not in %+v", p, *k)
		}
	}
	return *k
}

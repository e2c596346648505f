//go:build !windows

package daemon

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/fakeaws"
)

// TestDoctorFindsNothing on a machine where all is well.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	w := newOpsWorld(t, 0)
	w.config("[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:0\"\nprofile = \"app\"\n\n[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n")
	w.start()
	w.add("dev")
	if err := os.Chmod(w.path(".aws/credentials"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]control.DoctorParams{
		"all":     {Context: control.Context{Env: w.context("").Env}},
		"app":     {Context: w.context("app")},
		"dev":     {Context: w.context("dev")},
		"offline": {Context: w.context("app"), Offline: true},
	} {
		all := w.doctor(p)
		for _, k := range all {
			skipped := k.State == control.CheckSkipped && p.Offline
			// What this test itself has: keyfob is not built, alice's device is in no profile.
			if k.State != control.CheckOK && !skipped && k.ID != "daemon.programs" {
				t.Errorf("%s: %+v", name, k)
			}
		}
		for _, id := range []string{"settings", "files.config", "files.credentials", "files.keyfob", "files.plain-keys", "data-dir", "vault.unlocked", "vault.records", "daemon",
			"endpoint.imds", "endpoint.container", "proxy.no-proxy", "sts.reachable", "clock"} {
			if find(all, id) == nil {
				t.Errorf("%s: %s is missing", name, id)
			}
		}
	}
	all := w.doctor(control.DoctorParams{Context: w.context("app")})
	wantCheck(t, all, "profile.resolves", control.CheckOK, "app is static-keys, then assume-role")
	wantCheck(t, all, "profile.credentials", control.CheckOK, "app has credentials until ")
	wantCheck(t, all, "profile.identity", control.CheckOK, "AWS knows app as arn:aws:sts::222222222222:assumed-role/app/")
	wantCheck(t, all, "key.age", control.CheckOK)
	wantCheck(t, all, "sts.reachable", control.CheckOK, "STS answers at "+w.sts.URL)
	wantCheck(t, w.doctor(control.DoctorParams{Context: control.Context{Env: w.context("").Env}}), "profiles", control.CheckOK, "2 of 4 profiles have a source of credentials")
	if s := w.read("data/audit.jsonl"); strings.Contains(s, `"refusal"`) {
		t.Errorf("the doctor's own requests are refusals of the audit log: %s", s)
	}
}

// TestDoctorFinds each thing that is wrong.
func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	w := newOpsWorld(t, 200*24*time.Hour)
	w.env = append(w.env, "http_proxy=http://127.0.0.1:9", "NO_PROXY=169.254.169.254,127.0.0.1")
	w.write(".aws/credentials", "[plain]\naws_access_key_id = "+w.id+"\naws_secret_access_key = CANARY\n")
	w.write(".aws/config", w.read(".aws/config")+"[profile broken]\nrole_arn = arn:aws:iam::222222222222:role/app\nsource_profile = gone\n\n"+
		"[profile other]\nregion = eu-west-1\nsource_profile = dev\nrole_arn = arn:aws:iam::222222222222:role/app\nmfa_serial = arn:aws:iam::111122223333:mfa/lost\n")
	w.config("[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:0\"\nprofile = \"missing\"\n")
	w.start()
	w.add("dev")
	for path, mode := range map[string]os.FileMode{".aws/credentials": 0o644, ".aws/config": 0o666} {
		if err := os.Chmod(w.path(path), mode); err != nil {
			t.Fatal(err)
		}
	}
	w.aws.SetClock(10 * time.Minute)

	all := w.doctor(control.DoctorParams{Context: control.Context{Env: w.context("").Env}})
	wantCheck(t, all, "files.credentials.private", control.CheckWarning, "others on this machine may read", "chmod 600 "+w.path(".aws/credentials"))
	wantCheck(t, all, "files.config.private", control.CheckFailed, "whoever may write to", "chmod go-w "+w.path(".aws/config"))
	k := wantCheck(t, all, "files.plain-keys", control.CheckWarning, "the long-lived keys of plain stand in plain text in "+w.path(".aws/credentials")+":2", "keyfob import")
	if k.Line != 2 || k.About != "plain" {
		t.Errorf("%+v", k)
	}
	k = wantCheck(t, all, "profile.resolves", control.CheckFailed, "gone")
	if k.About != "broken" || k.File != w.path(".aws/config") || k.Line == 0 {
		t.Errorf("%+v", k)
	}
	wantCheck(t, all, "clock", control.CheckFailed, "the clock of this machine is ", "behind AWS's")
	wantCheck(t, all, "proxy.no-proxy", control.CheckWarning, "does not name 169.254.170.2:", "NO_PROXY=169.254.169.254,127.0.0.1,169.254.170.2 where keyfobd gets")
	wantCheck(t, all, "endpoint.imds.profile", control.CheckFailed, "hands out profile missing, and there is none")

	w.aws.SetClock(0)
	all = w.doctor(control.DoctorParams{Context: w.context("other")})
	wantCheck(t, all, "mfa.device", control.CheckFailed, "the user has no MFA device arn:aws:iam::111122223333:mfa/lost", "mfa_serial = "+aliceSerial)
	wantCheck(t, all, "profile.session", control.CheckWarning, "other needs an MFA code of arn:aws:iam::111122223333:mfa/lost", "keyfob login other")
	if s := w.status(); len(s.Interactions) != 0 {
		t.Errorf("the doctor asked a person: %+v", s.Interactions)
	}
	all = w.doctor(control.DoctorParams{Context: w.context("app")})
	k = wantCheck(t, all, "identity.key-age", control.CheckWarning, "days old", "keyfob rotate dev")
	if strings.Contains(k.Message, "keyfob rotate") {
		t.Errorf("%+v", k)
	}
	wantCheck(t, w.doctor(control.DoctorParams{Context: w.context("nobody")}), "profile.resolves", control.CheckFailed, "nobody")
	wantCheck(t, w.doctor(control.DoctorParams{Context: w.context("empty")}), "profile.resolves", control.CheckFailed, "keyfob add empty")

	// What AWS refuses, and an AWS that is not there.
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Action: "AssumeRole", Status: 403, Code: "AccessDenied", Message: "User: x is not authorized to perform: sts:AssumeRole"})
	w.must(control.MethodLogout, control.ProfileParams{Context: w.context("app")}, nil)
	wantCheck(t, w.doctor(control.DoctorParams{Context: w.context("app")}), "profile.credentials", control.CheckFailed, "cannot ", "role/app")
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang})
	begun := time.Now()
	wantCheck(t, w.doctor(control.DoctorParams{Context: w.context("app")}), "sts.reachable", control.CheckFailed, "did not answer in time")
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
	w.aws.SetFaults()

	// A bad edit, another environment, a locked vault.
	w.write(".aws/config", w.read(".aws/config")+"nonsense\n")
	all = w.doctor(control.DoctorParams{Context: control.Context{Env: map[string]string{"AWS_ENDPOINT_URL": "http://elsewhere"}}, Offline: true})
	k = wantCheck(t, all, "files.config", control.CheckFailed, "no `=`")
	if k.File != w.path(".aws/config") || k.Line != strings.Count(w.read(".aws/config"), "\n") {
		t.Errorf("%+v", k)
	}
	if k.Hint != keepsOld || find(all, "settings.reload") != nil {
		t.Errorf("%+v", all)
	}
	wantCheck(t, all, "environment.same", control.CheckFailed, "AWS_ENDPOINT_URL is http://elsewhere here")
	wantCheck(t, all, "sts.reachable", control.CheckSkipped)
	w.must(control.MethodLock, nil, nil)
	all = w.doctor(control.DoctorParams{Context: w.context("app"), Offline: true})
	wantCheck(t, all, "vault.unlocked", control.CheckFailed, "keyfob is locked", "keyfob unlock")
	wantCheck(t, all, "profile.credentials", control.CheckSkipped, "keyfob is locked")
	if strings.Contains(fmt.Sprint(all), "CANARY") {
		t.Error("the doctor shows a secret")
	}
}

package broker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

const (
	readOnlyARN = "arn:aws:iam::aws:policy/ReadOnlyAccess"
	billingARN  = "arn:aws:iam::aws:policy/job-function/Billing"
)

var (
	readOnly = cred.SessionPolicy{ARNs: []string{readOnlyARN}}.Encode()
	noS3     = cred.SessionPolicy{Inline: `{"Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"*"}]}`}.Encode()
)

// ruler are rules with policies and protected profiles.
type ruler struct {
	rules
	policy  map[string]string
	protect map[string]bool
	refuse  bool
}

func (r *ruler) Check(c peer.Caller, profile string, via cred.Endpoint) error {
	if r.refuse {
		return cred.ErrDenied
	}
	return r.rules.Check(c, profile, via)
}
func (r *ruler) Policy(profile string) string  { return r.policy[profile] }
func (r *ruler) Protected(profile string) bool { return r.protect[profile] }

func (r *rig) getPolicy(profile, policy string) (*cred.Snapshot, error) {
	return r.b.Get(r.t.Context(), cred.Request{Caller: self, Profile: profile, Policy: policy})
}

// policy is what the session of s was narrowed by.
func (r *rig) policy(s *cred.Snapshot) string {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.w.policies[s.AccessKeyID]
}

func TestPolicyIsASessionOfItsOwn(t *testing.T) {
	s := set{}.add("dev", static("base"), session("base", ""), role("dev", "R"))
	bubble(t, s, func(t *testing.T, r *rig) {
		get := func(policy, want string) *cred.Snapshot {
			t.Helper()
			s, err := r.getPolicy("dev", policy)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.policy(s); got != want {
				t.Fatalf("narrowed by %q, want %q", got, want)
			}
			return s
		}
		whole := get("", "")
		a := get(readOnly, readOnlyARN)
		b := get(noS3, `{"Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"*"}]}`)
		both := get(cred.SessionPolicy{Inline: " {} ", ARNs: []string{readOnlyARN, billingARN, readOnlyARN}}.Encode(), "{}"+readOnlyARN+","+billingARN)
		// The same, written otherwise, is the same session.
		if get(`{"arns": ["`+billingARN+`","`+readOnlyARN+`"], "inline":"{}\n"}`, "{}"+readOnlyARN+","+billingARN) != both {
			t.Error("one policy has two sessions")
		}
		for range 3 {
			if get("", "") != whole || get(readOnly, readOnlyARN) != a || get(noS3, r.policy(b)) != b {
				t.Fatal("mixed up")
			}
		}
		r.wantCalls("session-token", 1)
		r.wantCalls("assume-role", 4)
		if n := len(r.store.names("session/")); n != 5 {
			t.Errorf("%d records", n)
		}
		r.stop()
		r.start(s)
		if get(readOnly, readOnlyARN).AccessKeyID != a.AccessKeyID || get("", "").AccessKeyID != whole.AccessKeyID {
			t.Error("a restart mixes them up")
		}
		r.wantCalls("assume-role", 4)
		time.Sleep(40 * time.Minute)
		r.wantCalls("assume-role", 6) // refreshed ahead, each with its own
		get(readOnly, readOnlyARN)
		get("", "")
		shown := map[string]bool{}
		for _, x := range r.b.Sessions() {
			shown[x.Policy] = true
		}
		if !shown[""] || !shown[readOnly] {
			t.Errorf("status shows %v", shown)
		}
		if err := r.b.Forget(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		if n := r.store.names("session/"); len(n) != 0 {
			t.Errorf("after logout: %v", n)
		}
	})
}

func TestPolicyThatCannotBeHonoured(t *testing.T) {
	s := dev().add("keys", static("base"), session("base", "")).add("process", profiles.Link{Kind: profiles.KindProcess, Profile: "process"})
	bubble(t, s, func(t *testing.T, r *rig) {
		r.must("dev")
		for _, c := range []struct{ profile, policy, says string }{
			{"dev", "{}", "says nothing"},
			{"dev", "null", "says nothing"},
			{"dev", `{"Version":"2012-10-17","Statement":[]}`, "says nothing"}, // a document where an encoded policy belongs
			{"dev", `{"arns":[]}`, "says nothing"},
			{"dev", canary, "cannot be read"},
			{"dev", `["` + canary + `"]`, "cannot be read"},
			{"keys", readOnly, "by a session policy"},
			{"process", noS3, "by a session policy"},
		} {
			_, err := r.getPolicy(c.profile, c.policy)
			if !errors.Is(err, cred.ErrConfig) || !strings.HasPrefix(err.Error(), "cannot narrow profile "+c.profile) ||
				!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), canary) {
				t.Errorf("%s with %s: %v", c.profile, c.policy, err)
			}
		}
		// A resolver that leaves the policy out, or drops one half of it.
		r.b.SetProfiles(deaf{s})
		for _, policy := range []string{readOnly, noS3, cred.SessionPolicy{Inline: "{}", ARNs: []string{billingARN}}.Encode()} {
			if _, err := r.getPolicy("dev", policy); !errors.Is(err, cred.ErrConfig) {
				t.Errorf("%s is left out: %v", policy, err)
			}
		}
		r.wantCalls("assume-role", 1)
		if n := len(r.b.Sessions()); n != 1 {
			t.Errorf("%d active", n)
		}
	})
}

// deaf resolves with the inline half of a policy at most.
type deaf struct{ set }

func (d deaf) Resolve(q profiles.Query) (*profiles.Profile, error) {
	q.PolicyARNs = nil
	if q.PolicyInline != "{}" {
		q.PolicyInline = ""
	}
	return d.set.Resolve(q)
}

func TestPolicyOfTheRules(t *testing.T) {
	s := dev().add("keys", static("base"), session("base", ""))
	bubble(t, s, func(t *testing.T, r *rig) {
		whole := r.must("dev")
		r.b.SetActive(plain("dev"))
		r.b.SetRules(&ruler{policy: map[string]string{"dev": readOnly, "keys": readOnly}})
		if p, ok := r.b.Peek("dev"); ok && r.policy(p) != readOnlyARN {
			t.Fatal("what was there before is still handed out")
		}
		a := r.must("dev")
		if r.policy(a) != readOnlyARN {
			t.Fatalf("narrowed by %q", r.policy(a))
		}
		if same, err := r.getPolicy("dev", readOnly); err != nil || same != a {
			t.Errorf("the rules' own policy: %v", err)
		}
		_, err := r.getPolicy("dev", noS3)
		if !errors.Is(err, cred.ErrConfig) || !strings.Contains(err.Error(), "two session policies") || cred.HintOf(err) == "" {
			t.Errorf("two policies: %v, hint %q", err, cred.HintOf(err))
		}
		if _, err := r.get("keys"); !errors.Is(err, cred.ErrConfig) {
			t.Errorf("a profile that takes none: %v", err)
		}
		// Every way of asking.
		for name, q := range map[string]cred.Request{"region": {Region: "eu-west-1"}, "role": {RoleARN: "other"}, "implicit": {Implicit: true},
			"grant": {Grant: "g1"}, "imds": {Via: cred.Endpoint{Kind: cred.ViaIMDS}}} {
			q.Caller, q.Profile = self, "dev"
			got, err := r.b.Get(t.Context(), q)
			if err != nil || r.policy(got) != readOnlyARN {
				t.Errorf("%s: %v, %v", name, got, err)
			}
			if got, err = r.b.Refresh(t.Context(), q); err != nil || r.policy(got) != readOnlyARN {
				t.Errorf("%s: %v, %v", name, got, err)
			}
			if got, err = r.b.Fresh(t.Context(), q); err != nil || r.policy(got) != readOnlyARN {
				t.Errorf("%s: %v, %v", name, got, err)
			}
			if got = r.b.Held(q); got == nil || r.policy(got) != readOnlyARN {
				t.Errorf("%s: held %v", name, got)
			}
		}
		// The pinned one is refreshed with it.
		time.Sleep(24 * time.Hour)
		if p, ok := r.b.Peek("dev"); !ok || r.policy(p) != readOnlyARN {
			t.Errorf("a day later: %v", ok)
		}
		r.b.SetRules(rules{})
		if s := r.must("dev"); r.policy(s) != "" {
			t.Error("the policy outlives its rule")
		}
		if _, err := r.getPolicy("dev", noS3); err != nil {
			t.Error(err)
		}
		_ = whole
	})
}

// Rules that change while a caller waits hold for him.
func TestRulesThatChangeWhileACallerWaits(t *testing.T) {
	for name, c := range map[string]struct {
		rules Checker
		check func(r *rig, s *cred.Snapshot, err error) bool
	}{
		"narrowed": {&ruler{policy: map[string]string{"dev": readOnly}}, func(r *rig, s *cred.Snapshot, err error) bool {
			return err == nil && r.policy(s) == readOnlyARN
		}},
		"denied": {&ruler{refuse: true}, func(r *rig, s *cred.Snapshot, err error) bool { return errors.Is(err, cred.ErrDenied) }},
		"none":   {nil, func(r *rig, s *cred.Snapshot, err error) bool { return errors.Is(err, cred.ErrDenied) }},
		"protected": {&ruler{protect: map[string]bool{"dev": true}}, func(r *rig, s *cred.Snapshot, err error) bool {
			return errors.Is(err, cred.ErrDenied)
		}},
		"same": {rules{}, func(r *rig, s *cred.Snapshot, err error) bool { return err == nil && r.policy(s) == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, dev(), func(t *testing.T, r *rig) {
				r.w.latency = time.Second
				done := make(chan bool, 1)
				go func() {
					s, err := r.get("dev")
					done <- c.check(r, s, err)
				}()
				time.Sleep(500 * time.Millisecond)
				r.b.SetRules(c.rules)
				if !<-done {
					t.Error("the caller was judged by the old rules")
				}
			})
		})
	}
}

// From the files to the call of STS.
func TestPolicyFromFilesToAWS(t *testing.T) {
	realBubble(t, func(a *aRig) {
		dir := a.TempDir()
		config := "[profile base]\naws_access_key_id = " + a.id + "\naws_secret_access_key = " + a.secret + "\n" +
			"[profile dev]\nrole_arn = " + a.role + "\nsource_profile = base\nregion = eu-west-1\nendpoint_url = http://sts.test\n" +
			"[profile own]\nrole_arn = " + a.role + "\nsource_profile = base\nregion = eu-west-1\nendpoint_url = http://sts.test\nsession_policy_arns = " + readOnlyARN + "\n"
		file := filepath.Join(dir, "config")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			a.Fatal(err)
		}
		a.b.SetProfiles(profiles.Load(profiles.Input{ConfigFile: file, CredentialsFile: filepath.Join(dir, "c"), KeyfobFile: filepath.Join(dir, "k"), Home: dir}))
		get := func(profile, policy string) (*cred.Snapshot, error) {
			return a.b.Get(a.Context(), cred.Request{Caller: self, Profile: profile, Policy: policy})
		}
		for _, policy := range []string{"", noS3, readOnly} {
			if _, err := get("dev", policy); err != nil {
				a.Fatal(err)
			}
		}
		var sent []string
		for _, c := range a.aws.Calls("AssumeRole") {
			sent = append(sent, c.Params["Policy"]+c.Params["PolicyArns.member.1.arn"])
		}
		if !slices.Equal(sent, []string{"", `{"Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"*"}]}`, readOnlyARN}) {
			a.Errorf("sent %q", sent)
		}
		for profile, policy := range map[string]string{"own": noS3, "base": readOnly, "dev": cred.SessionPolicy{Inline: `{"a":"` + strings.Repeat("x", 2048) + `"}`}.Encode()} {
			if _, err := get(profile, policy); !errors.Is(err, cred.ErrConfig) || cred.HintOf(err) == "" {
				a.Errorf("%s: %v, hint %q", profile, err, cred.HintOf(err))
			}
		}
		if n := a.aws.Count("AssumeRole"); n != 3 {
			a.Errorf("%d calls", n)
		}
	})
}

func TestProtectedProfilesAreConfirmed(t *testing.T) {
	s := dev().add("free", static("base"), role("free", "F")).add("own", static("base"), role("own", "O"))
	s["own"].Protected = true
	protected := &ruler{protect: map[string]bool{"dev": true, "nosuch": true}}
	bubble(t, s, func(t *testing.T, r *rig) {
		r.b.SetRules(protected)
		var asked []cred.Request
		var answer error
		r.confirm = func(_ context.Context, q cred.Request) error {
			asked = append(asked, q)
			return answer
		}
		req := func(profile string) cred.Request {
			return cred.Request{Caller: self, Profile: profile, Region: "eu-west-1", Via: cred.Endpoint{Kind: cred.ViaProcess}}
		}
		for _, profile := range []string{"dev", "own"} {
			asked = nil
			for i := range 3 { // also where the answer is in memory
				if _, err := r.b.Get(t.Context(), req(profile)); err != nil {
					t.Fatal(err)
				}
				if len(asked) != i+1 || asked[i] != req(profile) {
					t.Fatalf("%s: asked %v", profile, asked)
				}
			}
			if r.b.Held(req(profile)) != nil {
				t.Errorf("%s is held without a yes", profile)
			}
			q := req(profile)
			q.Grant = "g1"
			if s, err := r.b.Get(t.Context(), q); err != nil || r.b.Held(q) != s || len(asked) != 3 {
				t.Errorf("%s by a grant: %v, asked %d times", profile, err, len(asked))
			}
			q = req(profile)
			q.Via.Kind = cred.ViaLogin
			if _, err := r.b.Fresh(t.Context(), q); err != nil || len(asked) != 3 {
				t.Errorf("%s at login: %v, asked %d times", profile, err, len(asked))
			}
		}
		asked = nil
		if _, err := r.b.Get(t.Context(), req("free")); err != nil || len(asked) != 0 {
			t.Errorf("free: %v, asked %v", err, asked)
		}
		// Nobody is asked on behalf of who may not, or for what is not there.
		q := req("dev")
		q.Caller.UID = "4711"
		if _, err := r.b.Get(t.Context(), q); !errors.Is(err, cred.ErrDenied) || len(asked) != 0 {
			t.Errorf("an outsider: %v, asked %v", err, asked)
		}
		if _, err := r.b.Get(t.Context(), req("nosuch")); !errors.Is(err, cred.ErrUnknownProfile) || len(asked) != 0 {
			t.Errorf("no such profile: %v, asked %v", err, asked)
		}

		before := r.b.Stats().Refusals
		answer = cred.ErrDenied
		for range 2 {
			if _, err := r.b.Get(t.Context(), req("dev")); err == nil || !errors.Is(err, cred.ErrDenied) || err.Error() != cred.ErrDenied.Error() {
				t.Errorf("after a no: %v", err)
			}
		}
		if n := r.b.Stats().Refusals - before; n != 2 {
			t.Errorf("%d refusals counted", n)
		}
		answer = &cred.InteractionError{Kind: cred.AskConfirm, Profile: "dev"}
		if _, err := r.b.Get(t.Context(), req("dev")); interactionOf(err) == nil {
			t.Errorf("nobody there: %v", err)
		}
		r.confirm = func(ctx context.Context, _ cred.Request) error {
			<-ctx.Done()
			return ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.b.Get(ctx, req("dev")); !errors.Is(err, cred.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody answers: %v", err)
		}
		r.b.cfg.Confirm = nil
		if _, err := r.b.Get(t.Context(), req("dev")); !errors.Is(err, cred.ErrDenied) {
			t.Errorf("nobody can be asked: %v", err)
		}
		if _, err := r.b.Get(t.Context(), req("free")); err != nil {
			t.Error(err)
		}
	})
}

// A no while the rules change, and rules that end a caller's right while a
// person thinks it over.
func TestRulesThatChangeWhileAPersonThinks(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.b.SetRules(&ruler{protect: map[string]bool{"dev": true}})
		r.confirm = func(context.Context, cred.Request) error {
			time.Sleep(time.Minute)
			return nil
		}
		done := make(chan error, 1)
		go func() {
			_, err := r.getAs("dev", false, time.Hour)
			done <- err
		}()
		time.Sleep(time.Second)
		r.b.SetRules(&ruler{refuse: true})
		if err := <-done; !errors.Is(err, cred.ErrDenied) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		r.wantCalls("assume-role", 0)
	})
}

// A rule's policy that a profile can't carry stops what is handed out, not the
// logout.
func TestLogoutOfWhatCannotBeNarrowed(t *testing.T) {
	s := set{}.add("keys", static("base"), session("base", "")).add("dev", static("base"), session("base", ""), role("dev", "R"))
	bubble(t, s, func(t *testing.T, r *rig) {
		r.must("dev")
		r.must("keys")
		r.b.SetRules(&ruler{policy: map[string]string{"keys": readOnly}})
		if _, err := r.get("keys"); !errors.Is(err, cred.ErrConfig) {
			t.Fatal(err)
		}
		if err := r.b.Forget(t.Context(), "keys"); err != nil {
			t.Fatal(err)
		}
		if n := len(r.store.names("session/")); n != 1 { // the role's
			t.Errorf("%d records", n)
		}
		r.b.SetRules(rules{})
		time.Sleep(time.Hour)
		r.must("dev")
		r.wantCalls("session-token", 2)
	})
}

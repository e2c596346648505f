//go:build !windows

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
)

const (
	readOnlyARN = "arn:aws:iam::aws:policy/ReadOnlyAccess"
	auditARN    = "arn:aws:iam::aws:policy/SecurityAudit"
	onlyList    = `{
  "Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]
}`
)

// session is what AWS knows of the credentials in an answer.
func (w *world) session(a answer) fakeaws.Session {
	w.t.Helper()
	if a.Err != "" || a.ID == "" {
		w.t.Fatalf("no credentials: %+v", a)
	}
	if err := identity(w.url, a); err != nil {
		w.t.Errorf("AWS does not take them: %v", err)
	}
	s, ok := w.aws.Session(a.ID)
	if !ok {
		w.t.Fatalf("AWS knows no session %s", a.ID)
	}
	return s
}

// sameJSON compares policies but for their white space.
func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	m, _ := json.Marshal(x)
	n, _ := json.Marshal(y)
	return string(m) == string(n)
}

// TestLessThanTheRole: an endpoint, a grant and an exec may hand out the same
// role with less, each as a session of its own beside the whole one.
func TestLessThanTheRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("config/keyfob/list.json", onlyList)
	whole, narrow := fmt.Sprintf("127.0.0.1:%d", quietPort(t)), fmt.Sprintf("127.0.0.1:%d", quietPort(t))
	w.write("config/keyfob/config.toml", fmt.Sprintf("[[endpoint]]\nkind = \"imds\"\nlisten = %q\nprofile = \"deploy\"\n[[endpoint]]\nkind = \"imds\"\nlisten = %q\nprofile = \"deploy\"\npolicy = \"list.json\"\npolicy_arns = [%q]\n[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n", whole, narrow, readOnlyARN))
	w.addKeys("base")
	w.credentials("deploy")

	metadata := func(listen string) fakeaws.Session {
		t.Helper()
		m := &metadataCaller{url: "http://" + listen, role: "deploy", client: httpClient(false)}
		var a answer
		eventually(t, "the endpoint serves", func() bool { a = m.ask(); return a.Status == 200 })
		return w.session(a)
	}
	container := func(args ...string) fakeaws.Session {
		t.Helper()
		g := w.grant(append([]string{"deploy"}, args...)...)
		c := &containerCaller{url: g.URL, tokenFile: g.TokenFile, client: httpClient(false)}
		return w.session(c.ask())
	}
	script := fmt.Sprintf("exec %s get \"$AWS_CONTAINER_CREDENTIALS_FULL_URI\" Authorization \"$AWS_CONTAINER_AUTHORIZATION_TOKEN\"", filepath.Join(bin, "probe"))
	program := func(args ...string) fakeaws.Session {
		t.Helper()
		r := w.must(nil, append(append([]string{"exec", "deploy"}, args...), "--", "sh", "-c", script)...)
		var p struct{ Body string }
		var a answer
		if err := json.Unmarshal([]byte(r.out), &p); err != nil {
			t.Fatalf("%q: %v", r.out, err)
		}
		a.take([]byte(p.Body))
		return w.session(a)
	}
	process := func(args ...string) fakeaws.Session {
		t.Helper()
		var a answer
		a.take([]byte(w.must(nil, append([]string{"credential-process", "--profile", "deploy"}, args...)...).out))
		return w.session(a)
	}
	file := w.path("config/keyfob/list.json")
	for _, c := range []struct {
		name   string
		got    fakeaws.Session
		policy string
		arns   []string
	}{
		{"endpoint without", metadata(whole), "", nil},
		{"endpoint", metadata(narrow), onlyList, []string{readOnlyARN}},
		{"grant without", container(), "", nil},
		{"grant --policy-arn", container("--policy-arn", readOnlyARN, "--policy-arn", auditARN), "", []string{readOnlyARN, auditARN}},
		{"grant --policy", container("--policy", file), onlyList, nil},
		{"exec without", program(), "", nil},
		{"exec --policy", program("--policy", file), onlyList, nil},
		{"exec --policy-arn", program("--policy-arn", auditARN), "", []string{auditARN}},
		{"credential-process without", process(), "", nil},
	} {
		s := c.got
		if !strings.Contains(s.ARN, asDeploy) || !sameJSON(s.Policy, c.policy) || !slices.Equal(s.PolicyARNs, c.arns) {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
	// One session for each of what is allowed, however it is asked for.
	if a, b, c := metadata(whole), process(), container(); a.AccessKeyID != b.AccessKeyID || b.AccessKeyID != c.AccessKeyID {
		t.Error("the whole role has more than one session")
	}
	if a, b := container("--policy", file), program("--policy", file); a.AccessKeyID != b.AccessKeyID {
		t.Error("one policy makes more than one session")
	}
	if metadata(narrow).AccessKeyID == metadata(whole).AccessKeyID {
		t.Error("less and all are one session")
	}
	// That it is less is what AWS says. fakeaws judges what it has a list for.
	n := w.aws.Count("AssumeRole")
	program("--policy", file)
	if more := w.aws.Count("AssumeRole") - n; more != 0 {
		t.Errorf("a session that is there was fetched %d times more", more)
	}
}

// TestWhatTakesNoPolicy: where the last link is no role, a wish for less is
// refused, and never answered with more.
func TestWhatTakesNoPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("list.json", onlyList)
	listen := fmt.Sprintf("127.0.0.1:%d", quietPort(t))
	w.write("config/keyfob/config.toml", fmt.Sprintf("[[endpoint]]\nkind = \"imds\"\nlisten = %q\nprofile = \"base\"\npolicy_arns = [%q]\n[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n", listen, readOnlyARN))
	w.addKeys("base")
	w.credentials("base") // the whole session is in memory
	for _, args := range [][]string{
		{"grant", "add", "base", "--policy", w.path("list.json")},
		{"grant", "add", "base", "--policy-arn", readOnlyARN},
		{"exec", "base", "--policy", w.path("list.json"), "--", "touch", w.path("ran")},
		{"exec", "base", "--policy-arn", readOnlyARN, "--", "touch", w.path("ran")},
	} {
		if r := w.run(nil, args...); r.code != 1 || r.out != "" || !strings.Contains(r.err, "policy") {
			t.Errorf("%v: exit %d, %q, %q", args, r.code, r.out, r.err)
		}
	}
	if _, err := os.Stat(w.path("ran")); err == nil {
		t.Error("the program was run")
	}
	if out := w.must(nil, "grant", "list", "--json").out; strings.Contains(out, `"id"`) {
		t.Errorf("a grant was made: %s", out)
	}
	m := &metadataCaller{url: "http://" + listen, role: "base", client: httpClient(false)}
	if a := m.ask(); a.ID != "" || a.Secret != "" || a.Err == "" {
		t.Errorf("the endpoint answers %d, %q, %q", a.Status, a.ID, a.Err)
	} else {
		t.Logf("the endpoint answers %d %s", a.Status, a.Err)
	}
	// What is no policy is refused before anything is asked.
	w.write("bad.json", "{\"Version\": }")
	for _, args := range [][]string{
		{"exec", "deploy", "--policy", w.path("bad.json"), "--", "true"},
		{"exec", "deploy", "--policy", w.path("none.json"), "--", "true"},
		{"exec", "deploy", "--policy-arn", "ReadOnlyAccess", "--", "true"},
	} {
		if r := w.run(nil, args...); r.code == 0 {
			t.Errorf("%v: exit %d, %q", args, r.code, r.err)
		}
	}
}

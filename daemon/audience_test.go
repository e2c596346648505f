package daemon

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

// methods are the Method constants of package control.
func methods(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../internal/control/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	found := map[string]string{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, name := range v.Names {
				if lit, isLit := at(v.Values, i).(*ast.BasicLit); isLit && strings.HasPrefix(name.Name, "Method") {
					found[name.Name], _ = strconv.Unquote(lit.Value)
				}
			}
			return true
		})
	}
	return found
}

func at(list []ast.Expr, i int) ast.Expr {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// TestEveryMethodHasAnAudience: whoever adds a method says who may call it at
// the daemon of a machine, where all users reach the socket.
func TestEveryMethodHasAnAudience(t *testing.T) {
	all := methods(t)
	if len(all) < 30 {
		t.Fatalf("only %d methods were found", len(all))
	}
	for name, method := range all {
		if _, ok := audiences[method]; !ok {
			t.Errorf("control.%s is not in the table of audiences", name)
		}
	}
	if len(audiences) != len(all) {
		t.Errorf("%d methods and %d audiences", len(all), len(audiences))
	}
	for method := range handlers {
		if _, ok := audiences[method]; !ok {
			t.Errorf("the handler of %q has no audience", method)
		}
	}
	if audiences["no-such-method"] != forAdmins {
		t.Error("an unknown method is for others than administrators")
	}
}

func TestNoEnvironmentOfACallerCounts(t *testing.T) {
	in, err := json.Marshal(control.CredentialsParams{Context: control.Context{Profile: "p", Named: true, RegionEnv: "eu-west-1", RegionVar: "AWS_REGION",
		Region: "eu-west-2", Env: map[string]string{"AWS_CONFIG_FILE": "/home/mallory/config"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{string(in), strings.Replace(strings.Replace(string(in), `"env"`, `"ENV"`, 1), "region_env", "Region_Env", 1)} {
		out, err := ignoreEnvironment(json.RawMessage(raw))
		if err != nil {
			t.Fatal(err)
		}
		var p control.CredentialsParams
		if err := json.Unmarshal(out, &p); err != nil || p.Env != nil || p.RegionEnv != "" || p.RegionVar != "" || p.Profile != "p" || !p.Named || p.Region != "eu-west-2" {
			t.Errorf("%s becomes %s, %v", raw, out, err)
		}
	}
	if _, err := ignoreEnvironment(json.RawMessage(`[1]`)); err == nil {
		t.Error("a list was taken for parameters")
	}
}

func TestExplanationForOthers(t *testing.T) {
	x := profiles.Explanation{Settings: []profiles.Setting{
		{Name: "role_arn", Value: "arn:aws:iam::222222222222:role/x", Shadows: []profiles.Shadow{{Value: "CANARY"}}},
		{Name: "external_id", Value: "CANARY"}, {Name: "credential_process", Value: "vault --token CANARY"}, {Name: "unheard_of", Value: "CANARY"},
	}, Warnings: []string{"CANARY"}, Error: &profiles.ExplainedError{Message: "CANARY"}}
	redactExplanation(&x)
	b, err := json.Marshal(x)
	if err != nil || strings.Contains(string(b), "CANARY") || !strings.Contains(string(b), "role/x") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestPoliciesOfOneUserAreBounded(t *testing.T) {
	var v variety
	ask := func(uid string, n int) bool {
		return v.allow(uid, control.SessionPolicy{Policy: strconv.Itoa(n)})
	}
	for n := range manyPolicies {
		if !ask("1000", n) {
			t.Fatalf("policy %d is refused", n)
		}
	}
	if ask("1000", manyPolicies) {
		t.Error("one more is allowed")
	}
	if !ask("1000", 0) || !ask("1001", manyPolicies) || !v.allow("1000", control.SessionPolicy{}) {
		t.Error("a known one, another user's or none is refused")
	}
}

func TestWhoAnswersAConfirmation(t *testing.T) {
	var x confirming
	mine := cred.KeyOf("confirm", map[string]string{"a": "b"}, cred.LinkKey{})
	never := func(cred.LinkKey) bool { return false }
	x.note(mine, peer.Caller{UID: "1000"}, never)
	for i := range 3 * manyConfirming { // another user's many do not drive it out
		x.note(cred.KeyOf("confirm", map[string]string{"n": strconv.Itoa(i)}, cred.LinkKey{}), peer.Caller{UID: "1001"}, never)
	}
	if who, ok := x.caller(mine); !ok || who.UID != "1000" {
		t.Errorf("%+v, %v", who, ok)
	}
	if n := len(x.by["1001"]); n > manyConfirming {
		t.Errorf("%d are kept of one user", n)
	}
	for i := range 3 * manyConfirming { // nor his own that wait
		x.note(cred.KeyOf("confirm", map[string]string{"m": strconv.Itoa(i)}, cred.LinkKey{}), peer.Caller{UID: "1000"}, func(k cred.LinkKey) bool { return k == mine })
	}
	if _, ok := x.caller(mine); !ok || len(x.by["1000"]) > manyConfirming {
		t.Errorf("a question that waits is forgotten, or %d are kept", len(x.by["1000"]))
	}
}

func TestFilesThatOthersCouldWrite(t *testing.T) {
	if exeSuffix != "" {
		t.Skip("no permissions of this kind here")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	chmod := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := writableByOthers(file); err != nil {
		t.Fatal(err)
	}
	if err := writableByOthers(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	chmod(file, 0o602)
	if writableByOthers(file) == nil {
		t.Error("a file that all may write to is taken")
	}
	chmod(file, 0o600)
	chmod(dir, 0o777)
	if writableByOthers(file) == nil {
		t.Error("a directory that all may write to is taken")
	}
	if writableByOthers(filepath.Join(dir, "none")) == nil {
		t.Error("a file that all could make is taken")
	}
	chmod(dir, 0o700)
	link := filepath.Join(t.TempDir(), "link")
	chmod(dir, 0o777)
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if writableByOthers(link) == nil {
		t.Error("a link into such a directory is taken")
	}
	// A link on the way, which others could lead elsewhere.
	chmod(dir, 0o700)
	open := t.TempDir()
	if err := os.Symlink(file, filepath.Join(open, "middle")); err != nil {
		t.Fatal(err)
	}
	far := filepath.Join(t.TempDir(), "far")
	if err := os.Symlink(filepath.Join(open, ".", "middle"), far); err != nil {
		t.Fatal(err)
	}
	if err := writableByOthers(far); err != nil {
		t.Error(err)
	}
	chmod(open, 0o777)
	if writableByOthers(far) == nil {
		t.Error("a link that others could lead elsewhere is taken")
	}
	chmod(open, 0o777|os.ModeSticky)
	if err := writableByOthers(far); err != nil {
		t.Error(err)
	}
	if writableByOthers(filepath.Join(open, "none")) == nil {
		t.Error("a file that all could make, and take away again, is taken")
	}
	if err := os.Symlink("ring", filepath.Join(dir, "ring")); err != nil {
		t.Fatal(err)
	}
	if writableByOthers(filepath.Join(dir, "ring")) == nil {
		t.Error("a ring of links is taken")
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 54321, 54321); err != nil {
			t.Fatal(err)
		}
		if writableByOthers(file) == nil {
			t.Error("another user's file is taken")
		}
	}
}

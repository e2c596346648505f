// Package internal_test holds the rules of the house as tests: who may
// import whom, which program may hold what, and that every package says what
// it is. docs/architecture.md tells why.
package internal_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed says which packages of ours each package may import. A package of
// internal/source is looked up as "internal/source". logging and settings
// may be imported where they are named; logging, atomicfile and prefetch by all.
var allowed = map[string][]string{
	"profiles":            {},
	"internal/peer":       {},
	"internal/control":    {},
	"internal/logging":    {},
	"internal/atomicfile": {},
	"internal/settings":   {},
	"internal/fakeaws":    {},
	"internal/e2e":        {},
	"internal/cred":       {"internal/peer"},

	"internal/fakeaws/fakeawstest": {"internal/fakeaws"},
	"internal/prefetch":            {},
	"internal/winacl":              {},
	"keystore":                     {"internal/cred", "keystore/internal/wire", "internal/winacl"},
	"keystore/internal/wire":       {},
	"keystore/keyring":             {"keystore", "keystore/internal/wire"},
	"keystore/keystoretest":        {"internal/cred"},
	"internal/awsclient":           {"profiles"},
	"internal/source":              {"internal/cred", "profiles", "internal/awsclient", "internal/source"},
	"internal/interact":            {"internal/cred", "internal/peer"},
	"internal/audit":               {"internal/cred", "internal/peer"},
	"internal/metrics":             {"internal/cred"},
	"internal/mfa":                 {"internal/cred", "internal/peer"},
	"internal/access":              {"internal/cred", "internal/peer"},
	"internal/broker":              {"internal/cred", "profiles", "internal/peer", "internal/access"},
	"imds":                         {"internal/cred", "internal/peer", "internal/access", "internal/broker"},
	"internal/ops":                 {"internal/cred", "profiles", "internal/awsclient"},
	"internal/service":             {"internal/settings", "internal/winacl"},
	"internal/hot":                 {},
	"internal/hot/early":           {"internal/hot"},
	"internal/setup":               {"profiles"},
	"internal/watch":               {"internal/control"},
	"internal/cli":                 {"internal/control", "profiles", "internal/settings", "internal/hot", "internal/setup", "internal/watch"},
	"daemon": {"imds", "profiles", "keystore", "internal/cred", "internal/broker", "internal/access", "internal/peer", "internal/awsclient", "internal/source",
		"internal/interact", "internal/audit", "internal/metrics", "internal/mfa", "internal/ops", "internal/service", "internal/control", "internal/settings", "internal/winacl"},
	"cmd/keyfob":         {"internal/cli", "internal/hot/early"},
	"cmd/keyfobd":        {"daemon"},
	"cmd/keyfob-keyring": {"keystore/keyring"},
	"internal/signin":    {},
	"cmd/keyfob-signin":  {"internal/signin"},
	"cmd/fakeaws":        {"internal/fakeaws"},
}

type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
	Standard   bool
}

func list(t *testing.T, goos string, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Doc,Imports,Deps,GoFiles,Standard"}, args...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v", goos, err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func ours(importPath string) (string, bool) { return strings.CutPrefix(importPath, "keyfob/") }

func room(name string) string {
	if strings.HasPrefix(name, "internal/source/") {
		return "internal/source"
	}
	return name
}

func TestImportsGoOneWay(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		seen := 0
		for _, p := range list(t, goos, "./...") {
			name, ok := ours(p.ImportPath)
			if !ok || len(p.GoFiles) == 0 {
				continue
			}
			seen++
			may, known := allowed[room(name)]
			if !known {
				t.Errorf("%s: no rule for this package: add it to the table and to docs/architecture.md", name)
				continue
			}
			for _, imp := range p.Imports {
				target, isOurs := ours(imp)
				if !isOurs || target == "internal/logging" || target == "internal/atomicfile" || target == "internal/prefetch" {
					continue
				}
				if !slices.Contains(may, room(target)) {
					t.Errorf("%s (%s) imports %s, which its row of the table does not name", name, goos, target)
				}
			}
		}
		if seen < 20 {
			t.Errorf("%s: go list showed only %d packages", goos, seen)
		}
	}
}

// TestProgramsHoldOnlyWhatTheyMay: the client starts fast and can leak
// nothing that it does not have; the keyring library dials D-Bus when it is
// imported, so only the helper has it; no program but fakeaws holds fakeaws.
func TestProgramsHoldOnlyWhatTheyMay(t *testing.T) {
	banned := map[string][]string{
		"cmd/keyfob":         {"github.com/aws/", "github.com/99designs/", "net/http", "crypto/tls", "keyfob/keystore", "keyfob/daemon", "keyfob/internal/fakeaws"},
		"cmd/keyfobd":        {"github.com/99designs/", "github.com/godbus/", "keyfob/keystore/keyring", "keyfob/internal/fakeaws"},
		"cmd/keyfob-keyring": {"github.com/aws/", "net/http", "keyfob/internal/fakeaws"},
		"cmd/keyfob-signin":  {"github.com/aws/", "github.com/99designs/", "keyfob/internal/fakeaws"},
	}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for cmd, bans := range banned {
			for _, p := range list(t, goos, "./"+cmd) {
				for _, dep := range p.Deps {
					for _, ban := range bans {
						if dep == strings.TrimSuffix(ban, "/") || strings.HasPrefix(dep, ban) {
							t.Errorf("%s (%s) holds %s", cmd, goos, dep)
						}
					}
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "linux", "./...") {
		if name, ok := ours(p.ImportPath); ok && len(p.GoFiles) > 0 && len(strings.Fields(p.Doc)) < 4 {
			t.Errorf("%s has no package comment", name)
		}
	}
}

// TestOnlyMainExits: os.Exit and the logger's Fatal skip every deferred
// clean-up, so that they stand in main alone.
func TestOnlyMainExits(t *testing.T) {
	files := 0
	for _, p := range list(t, "linux", "./...") {
		name, _ := ours(p.ImportPath)
		if strings.HasPrefix(name, "cmd/") {
			continue
		}
		for _, f := range p.GoFiles {
			files++
			path := filepath.Join(p.Dir, f)
			tree, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					x, _ := sel.X.(*ast.Ident)
					if x != nil && x.Name == "os" && sel.Sel.Name == "Exit" || x != nil && x.Name == "log" && strings.HasPrefix(sel.Sel.Name, "Fatal") {
						t.Errorf("%s calls %s.%s", path, x.Name, sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
	if files < 30 {
		t.Errorf("only %d files were read", files)
	}
}

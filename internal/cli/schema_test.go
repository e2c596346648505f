//go:build !windows

package cli

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keyfob/internal/control"
	"keyfob/internal/service"
	"keyfob/profiles"
)

type (
	grantAdded struct {
		ID          string   `json:"id"`
		Profiles    []string `json:"profiles"`
		URL         string   `json:"url"`
		RelativeURI string   `json:"relative_uri,omitempty"`
		TokenFile   string   `json:"token_file"`
		Expires     string   `json:"expires"` // RFC 3339, "" for never
	}
	revoked struct {
		Revoked []string `json:"revoked"` // ids
	}
	stopped struct {
		PID int `json:"pid,omitempty"`
	}
	changes struct {
		Changes []undone `json:"changes"` // the next to be undone first
	}
	// auditLine is a line of audit.jsonl (CONTRACT.md §8).
	auditLine struct {
		Version  int    `json:"version"`
		Time     string `json:"time"` // RFC 3339, of the last of those counted
		Count    int64  `json:"count"`
		Event    string `json:"event"` // handout, refusal, confirmation, recovery-key; lost, rotation
		Profile  string `json:"profile,omitempty"`
		Endpoint string `json:"endpoint,omitempty"`
		Caller   *struct {
			UID     string `json:"uid,omitempty"`
			User    string `json:"user,omitempty"`
			PID     int    `json:"pid,omitempty"`
			Program string `json:"program,omitempty"`
			Parent  string `json:"parent,omitempty"`
		} `json:"caller,omitempty"`
		AccessKeyID string `json:"access_key_id,omitempty"`
		AccountID   string `json:"account_id,omitempty"`
		Expiration  string `json:"expiration,omitempty"`
		Reason      string `json:"reason,omitempty"`
		Previous    string `json:"previous"` // hash of the line before
	}
)

// schemas are what --json prints: the name of the file, the command, and the
// type. A command may have several.
var schemas = []struct {
	name, command string
	value         any
}{
	{"overview", "overview", overview{}},
	{"credential-process", "credential-process", control.CredentialsResult{}},
	{"env", "env", map[string]string{}},
	{"add", "add", control.AddResult{}},
	{"remove", "remove", profileFact{}},
	{"list", "list", control.ListResult{}},
	{"explain", "explain", profiles.Explanation{}},
	{"explain-shadow", "explain", profiles.ShadowReport{}},
	{"status", "status", control.StatusResult{}},
	{"login", "login", control.LoginResult{}},
	{"console", "console", control.ConsoleResult{}},
	{"whoami", "whoami", control.WhoamiResult{}},
	{"answer", "answer", struct{}{}},
	{"logout", "logout", profileFact{}},
	{"grant-add", "grant add", grantAdded{}},
	{"grant-list", "grant list", control.GrantListResult{}},
	{"grant-remove", "grant remove", revoked{}},
	{"audit", "audit", auditLine{}},
	{"audit-verify", "audit verify", control.AuditVerifyResult{}},
	{"mfa-add", "mfa add", control.MFAAddResult{}},
	{"mfa-list", "mfa list", control.MFAListResult{}},
	{"mfa-remove", "mfa remove", mfaRemoved{}},
	{"mfa-code", "mfa code", control.MFACodeResult{}},
	{"rotate", "rotate", control.RotateResult{}},
	{"policy", "policy trust", control.PolicyResult{}},
	{"policy", "policy identity", control.PolicyResult{}},
	{"doctor", "doctor", control.DoctorResult{}},
	{"lock", "lock", struct{}{}},
	{"unlock", "unlock", struct{}{}},
	{"vault-recovery-key", "vault recovery-key", recoveryKeyMade{}},
	{"reload", "reload", struct{}{}},
	{"stop", "stop", stopped{}},
	{"version", "version", versionInfo{}},
	{"configure", "configure", configured{}},
	{"configure-undo", "configure undo", undone{}},
	{"configure-undo-list", "configure undo", changes{}},
	{"import", "import", importResult{}},
	{"certificate-add", "certificate add", control.CertificateEntry{}},
	{"certificate-list", "certificate list", control.CertificateListResult{}},
	{"certificate-remove", "certificate remove", control.CertificateEntry{}},
	{"certificate-passphrase", "certificate passphrase", control.CertificateEntry{}},
	{"service-status", "service", service.Status{}},
	{"link-local-status", "link-local", service.LinkLocalStatus{}},
}

func schemaNames(command string) (names []string) {
	for _, s := range schemas {
		if s.command == command {
			names = append(names, s.name)
		}
	}
	return names
}

func TestDocsOfSchemas(t *testing.T) {
	comments := fieldComments(t, ".", "../control", "../../profiles", "../setup", "../service")
	files := map[string]bool{}
	for _, s := range schemas {
		name := s.name + ".json"
		if files[name] {
			continue
		}
		files[name] = true
		schema := schemaOf(reflect.TypeOf(s.value), comments)
		schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
		schema["title"] = "keyfob " + s.command + " --json"
		b, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		current(t, "schemas/"+name, string(b)+"\n")
	}
	noOthers(t, "schemas", files)
}

// Every command has --json and a schema, but those whose output is text by
// its nature.
func TestEveryCommandHasJSON(t *testing.T) {
	text := []string{"exec", "completion", "help", "__complete", "__describe"}
	for _, c := range commands() {
		has := (&app{}).flagSet(c).Lookup("json") != nil
		switch {
		case slices.Contains(text, c.name):
			if has || len(schemaNames(c.name)) > 0 {
				t.Errorf("keyfob %s counts as text, and has --json", c.name)
			}
		case !has:
			t.Errorf("keyfob %s has no --json", c.name)
		case len(schemaNames(c.name)) == 0:
			t.Errorf("keyfob %s has --json and no schema", c.name)
		}
	}
	for _, s := range schemas {
		if find(commands(), s.command) == nil {
			t.Errorf("the schema %s is of keyfob %s, which there is not", s.name, s.command)
		}
	}
}

// schemaOf is the JSON schema of a type. Members that are not described may
// be added by later releases, so that none are ruled out.
func schemaOf(t reflect.Type, comments map[string]string) map[string]any {
	if t == reflect.TypeFor[json.RawMessage]() {
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), comments)
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), comments)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), comments)}
	case reflect.Struct:
		properties, required := map[string]any{}, []string{}
		for i := range t.NumField() {
			f := t.Field(i)
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if tag == "" || tag == "-" || !f.IsExported() {
				continue
			}
			p := schemaOf(f.Type, comments)
			if text := comments[t.Name()+"."+f.Name]; text != "" {
				p["description"] = text
			}
			properties[tag] = p
			if options != "omitempty" {
				required = append(required, tag)
			}
		}
		s := map[string]any{"type": "object", "properties": properties}
		if len(required) > 0 {
			s["required"] = required
		}
		return s
	}
	panic(fmt.Sprintf("no schema for %s", t))
}

// fieldComments are the comments of struct fields, as Type.Field.
func fieldComments(t *testing.T, dirs ...string) map[string]string {
	comments := map[string]string{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				s, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, f := range s.Fields.List {
					text := strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
					for _, name := range f.Names {
						if text != "" {
							comments[spec.Name.Name+"."+name.Name] = text
						}
					}
				}
				return true
			})
		}
	}
	return comments
}

// matches says where v is not what the schema has it be.
func matches(schema map[string]any, v any, at string) (faults []string) {
	want, _ := schema["type"].(string)
	is := map[string]bool{}
	switch v := v.(type) {
	case map[string]any:
		is["object"] = true
		required, _ := schema["required"].([]string)
		for _, name := range required {
			if _, there := v[name]; !there {
				faults = append(faults, at+" lacks "+name)
			}
		}
		properties, _ := schema["properties"].(map[string]any)
		others, _ := schema["additionalProperties"].(map[string]any)
		for name, member := range v {
			switch p, known := properties[name].(map[string]any); {
			case known:
				faults = append(faults, matches(p, member, at+"."+name)...)
			case others != nil:
				faults = append(faults, matches(others, member, at+"."+name)...)
			case properties != nil && name != "from_the_future":
				faults = append(faults, at+" has "+name+", which is not described")
			}
		}
	case []any:
		is["array"] = true
		items, _ := schema["items"].(map[string]any)
		for i, x := range v {
			faults = append(faults, matches(items, x, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case string:
		is["string"] = true
	case bool:
		is["boolean"] = true
	case float64:
		is["integer"] = v == float64(int64(v))
	}
	if want != "" && !is[want] {
		faults = append(faults, fmt.Sprintf("%s is %v and no %s", at, v, want))
	}
	return faults
}

// jsonLines are command lines whose --json is compared with its schema, by
// the schema's name, with what they read.
var jsonLines = map[string]struct{ line, stdin string }{
	"overview": {line: "--json"}, "list": {line: "list --json"}, "explain": {line: "explain a --json"}, "explain-shadow": {line: "explain a --shadow --json"},
	"status": {line: "status --json"}, "credential-process": {line: "credential-process a --json"}, "env": {line: "env a --json"}, "login": {line: "login a --json"},
	"whoami": {line: "whoami a --json"}, "console": {line: "console a --json"}, "answer": {line: "answer i9 --json"}, "logout": {line: "logout a --json"},
	"add":    {"add new --json", `{"AccessKeyId":"AKIAEXAMPLE","SecretAccessKey":"x"}`},
	"remove": {line: "remove a --yes --json"}, "grant-add": {line: "grant add a --json"}, "grant-list": {line: "grant list --json"}, "grant-remove": {line: "grant remove g1 --json"},
	"audit": {line: "audit --limit 1 --json"}, "audit-verify": {line: "audit verify --json"},
	"mfa-add": {"mfa add arn:aws:iam::123456789012:mfa/u --json", "JBSWY3DPEHPK3PXP\n"}, "mfa-list": {line: "mfa list --json"},
	"mfa-remove": {line: "mfa remove --profile a --yes --json"}, "mfa-code": {line: "mfa code --profile a --json"}, "rotate": {line: "rotate a --json"},
	"policy": {line: "policy trust a --json"}, "doctor": {line: "doctor --json"}, "version": {line: "version --json"}, "lock": {line: "lock --json"},
	"unlock": {line: "unlock --json"}, "vault-recovery-key": {line: "vault recovery-key --yes --json"}, "reload": {line: "reload --json"}, "stop": {line: "stop --json"},
	"configure":      {line: "configure x --kind role --role-arn arn:aws:iam::123456789012:role/r --source-profile a --yes --json"},
	"configure-undo": {line: "configure undo --yes --json"}, "configure-undo-list": {line: "configure undo --list --json"},
	"import":          {line: "import --all --yes --json"},
	"certificate-add": {line: "certificate add c --certificate cert.pem --json"}, "certificate-list": {line: "certificate list --json"},
	"certificate-remove": {line: "certificate remove c --yes --json"}, "certificate-passphrase": {"certificate passphrase cert.pem --json", "open sesame\n"},
	// keyfobd prints these; its own tests do.
	"service-status": {}, "link-local-status": {},
}

// What the commands print is what their schemas say.
func TestJSONMatchesSchemas(t *testing.T) {
	for _, s := range schemas {
		c, there := jsonLines[s.name]
		if !there {
			t.Errorf("no command line is tried for the schema %s", s.name)
		}
		if c.line == "" {
			continue
		}
		h := newHome(t)
		h.jsonWorld()
		if s.name == "configure-undo" || s.name == "configure-undo-list" {
			h.json(jsonLines["configure"].line, "")
		}
		out := h.json(c.line, c.stdin)
		var v any
		if err := json.Unmarshal(out, &v); err != nil {
			t.Errorf("keyfob %s prints no JSON: %v\n%s", c.line, err, out)
			continue
		}
		if faults := matches(schemaOf(reflect.TypeOf(s.value), nil), v, s.name); len(faults) > 0 {
			slices.Sort(faults)
			t.Errorf("keyfob %s: %s", c.line, strings.Join(faults, "; "))
		}
	}
}

// jsonWorld writes the files that jsonLines speak of.
func (h *home) jsonWorld() {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, ".aws"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cert.pem":         "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		".aws/config":      "[profile a]\nregion = eu-west-1\n",
		".aws/credentials": "[dev]\naws_access_key_id = AKIAEXAMPLE1\naws_secret_access_key = x\n",
	} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	h.set("audit", `{"version":1,"time":"2026-01-02T03:04:05Z","count":3,"event":"handout","profile":"a","caller":{"uid":"1","pid":7,"program":"/usr/bin/terraform"},"access_key_id":"ASIA1","previous":"00"}`)
}

// json is what a command line prints.
func (h *home) json(line, stdin string) []byte {
	h.t.Helper()
	cmd := h.command(strings.Fields(line)...)
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &said
	out, err := cmd.Output()
	if err != nil && !strings.HasPrefix(line, "doctor") { // which finds something broken
		h.t.Errorf("keyfob %s: %v\n%s%s", line, err, out, said.String())
	}
	return out
}

package settings

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocsNameEverySetting: docs/settings.md knows each key of config.toml.
func TestDocsNameEverySetting(t *testing.T) {
	b, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var walk func(prefix string, rt reflect.Type)
	walk = func(prefix string, rt reflect.Type) {
		for i := range rt.NumField() {
			f := rt.Field(i)
			key := f.Tag.Get("toml")
			switch {
			case key == "":
			case f.Type.Kind() == reflect.Struct:
				walk(key+".", f.Type)
			case f.Type == reflect.TypeFor[*fileMetadata](), f.Type == reflect.TypeFor[[]fileEndpointUser]():
				walk("", f.Type.Elem())
			default:
				seen++
				if !named(string(b), prefix+key) {
					t.Errorf("docs/settings.md does not name %s%s", prefix, key)
				}
			}
		}
	}
	walk("", reflect.TypeFor[fileSettings[string]]())
	walk("", reflect.TypeFor[fileEndpoint]())
	walk("", reflect.TypeFor[fileProfileRule]())
	if seen < 50 {
		t.Errorf("only %d settings were looked for", seen)
	}
}

// named reports whether the text has the key as a whole word.
func named(text, key string) bool {
	for rest := text; ; {
		i := strings.Index(rest, key)
		if i < 0 {
			return false
		}
		before, after := rest[:i], rest[i+len(key):]
		if !strings.HasSuffix(before, "_") && !strings.HasPrefix(after, "_") {
			return true
		}
		rest = after
	}
}

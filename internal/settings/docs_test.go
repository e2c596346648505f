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
			default:
				seen++
				if !strings.Contains(string(b), prefix+key) {
					t.Errorf("docs/settings.md does not name %s%s", prefix, key)
				}
			}
		}
	}
	walk("", reflect.TypeFor[fileSettings[string]]())
	walk("", reflect.TypeFor[fileEndpoint]())
	walk("", reflect.TypeFor[fileProfileRule]())
	if seen < 20 {
		t.Errorf("only %d settings were looked for", seen)
	}
}

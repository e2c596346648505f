package cli

import "testing"

func TestBatchFilesGetTheirArgumentsQuoted(t *testing.T) {
	for arg, want := range map[string]string{
		"":       `""`,
		"a b":    `"a b"`,
		"a&b|c":  `"a&b|c"`,
		"^<>":    `"^<>"`,
		`a"b`:    `"a""b"`,
		`a\"b`:   `"a\\""b"`,
		`a\`:     `"a\\"`,
		`a\b`:    `"a\b"`,
		"%PATH%": `"%%cd:~,%PATH%%cd:~,%"`,
	} {
		got, err := batchLine(`C:\x y\s.cmd`, []string{arg})
		if want = `cmd.exe /e:on /v:off /d /c ""C:\x y\s.cmd" ` + want + `"`; err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", arg, got, err, want)
		}
	}
	for _, bad := range []string{"a\nb", "a\rb", "a\x00b"} {
		if line, err := batchLine(`C:\s.cmd`, []string{bad}); err == nil {
			t.Errorf("%q: %s", bad, line)
		}
	}
	if line, err := batchLine(`C:\%x%.cmd`, nil); err == nil {
		t.Error(line)
	}
}

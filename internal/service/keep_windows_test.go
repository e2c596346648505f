package service

import (
	"slices"
	"testing"
)

func TestATasksArgumentsAreReadBack(t *testing.T) {
	c := Config{Program: `C:\Program Files\keyfob\keyfobd.exe`, Args: []string{"--config", `C:\x y\"é&<>\`, "--socket", `\\.\pipe\k`}}
	got := taskArgs(utf16LE(c.taskText("S-1")))
	if want := append([]string{"keyfobd"}, c.args()...); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

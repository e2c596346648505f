package service

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// taskName is the logon task's: task names are the machine's, so that each
// user's has the SID in it.
func taskName(sid string) string { return `keyfob\` + sid }

// taskText is the text of the logon task. A service as LocalSystem could not
// see the person's vault; a task at logon runs as that person, in their
// session.
func (c Config) taskText(sid string) string {
	var args []string
	for _, a := range c.args() {
		args = append(args, windowsArg(a))
	}
	return render("logon-task.xml", map[string]string{
		"TASK": xmlText(taskName(sid)), "USER": xmlText(sid),
		"COMMAND": xmlText(c.Program), "ARGS": xmlText(strings.Join(args, " ")),
	})
}

// utf16LE is s as schtasks reads it: UTF-16, little endian, with a byte
// order mark.
func utf16LE(s string) []byte {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(strings.ReplaceAll(s, "\n", "\r\n"))) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

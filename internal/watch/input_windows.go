package watch

import (
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/windows"
)

var procReadConsoleInput = windows.NewLazySystemDLL("kernel32.dll").NewProc("ReadConsoleInputW")

// inputRecord is INPUT_RECORD of the console API with a KEY_EVENT_RECORD in
// it: https://learn.microsoft.com/windows/console/input-record-str
type inputRecord struct {
	kind    uint16
	_       uint16
	down    int32
	repeat  uint16
	keyCode uint16
	scan    uint16
	char    uint16
	control uint32
}

const keyEvent = 1

// pendingKeys takes the events that wait for a console and returns what the
// pressed keys send. Unlike a read of the file it never waits: mouse, focus
// and size events make the handle ready, too.
func pendingKeys(in windows.Handle) ([]byte, error) {
	var records [64]inputRecord
	var n uint32
	ok, _, err := procReadConsoleInput.Call(uintptr(in), uintptr(unsafe.Pointer(&records[0])), uintptr(len(records)), uintptr(unsafe.Pointer(&n)))
	if ok == 0 {
		return nil, err
	}
	var typed []byte
	for _, r := range records[:min(int(n), len(records))] {
		if r.kind == keyEvent && r.down != 0 && r.char != 0 {
			typed = utf8.AppendRune(typed, rune(r.char))
		}
	}
	return typed, nil
}

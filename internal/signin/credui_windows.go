package signin

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// creduiInfo is CREDUI_INFOW of wincred.h.
type creduiInfo struct {
	size    uint32
	parent  windows.HWND
	message *uint16
	caption *uint16
	banner  windows.Handle
}

// Flags and limits of wincred.h.
const (
	creduiDoNotPersist       = 0x00000002
	creduiAlwaysShowUI       = 0x00000080
	creduiGenericCredentials = 0x00040000
	creduiKeepUsername       = 0x00100000

	creduiMaxCaption  = 128
	creduiMaxMessage  = 1024
	creduiMaxUsername = 513
	creduiMaxPassword = 256
)

// askCredUI asks in the credential dialog of Windows, which is part of this
// process and so goes with it: the profile stands where the user name would
// be, and can't be changed. Nothing is stored.
func askCredUI(ctx context.Context, p prompt) (string, error) {
	ask := windows.NewLazySystemDLL("credui.dll").NewProc("CredUIPromptForCredentialsW")
	if err := ask.Find(); err != nil {
		return "", fmt.Errorf("%w: Windows has no credential dialog here", errNobody)
	}
	type result struct {
		typed string
		err   error
	}
	got := make(chan result, 1)
	go func() {
		typed, err := credUI(ask, p)
		got <- result{typed, err}
	}()
	select {
	case r := <-got:
		return r.typed, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx) // the dialog ends with the process
	}
}

func credUI(ask *windows.LazyProc, p prompt) (string, error) {
	message, err := wide(p.body(), creduiMaxMessage)
	if err != nil {
		return "", err
	}
	caption, err := wide(p.title, creduiMaxCaption)
	if err != nil {
		return "", err
	}
	name, err := wide(p.label, creduiMaxUsername)
	if err != nil {
		return "", err
	}
	username := make([]uint16, creduiMaxUsername+1)
	copy(username, name)
	password := make([]uint16, creduiMaxPassword+1)
	defer clear(password)
	target, err := wide("keyfob", 64)
	if err != nil {
		return "", err
	}
	info := creduiInfo{message: &message[0], caption: &caption[0]}
	info.size = uint32(unsafe.Sizeof(info))
	save := int32(0)
	code, _, _ := ask.Call(uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&target[0])), 0, 0,
		uintptr(unsafe.Pointer(&username[0])), uintptr(len(username)),
		uintptr(unsafe.Pointer(&password[0])), uintptr(len(password)),
		uintptr(unsafe.Pointer(&save)), creduiGenericCredentials|creduiAlwaysShowUI|creduiDoNotPersist|creduiKeepUsername)
	switch windows.Errno(code) {
	case 0:
		return windows.UTF16ToString(password), nil
	case windows.ERROR_CANCELLED:
		return "", errRefused
	case windows.ERROR_NO_SUCH_LOGON_SESSION:
		return "", fmt.Errorf("%w: this process has no desktop", errNobody)
	}
	return "", errors.New(windows.Errno(code).Error())
}

// wide is s with a final NUL, cut to limit characters with it.
func wide(s string, limit int) ([]uint16, error) {
	w, err := windows.UTF16FromString(s)
	if err != nil {
		return nil, err
	}
	if len(w) > limit {
		w = append(w[:limit-1:limit-1], 0)
	}
	return w, nil
}

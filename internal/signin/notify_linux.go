package signin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	notifyName  = "org.freedesktop.Notifications"
	notifyPath  = dbus.ObjectPath("/org/freedesktop/Notifications")
	notifyIcon  = "dialog-password"
	urgencyNorm = byte(1)
)

// show calls the desktop's notification service (the Desktop Notifications
// Specification, version 1.2). It does so itself because beeep falls back to
// programs that take the text as arguments, starts a bus with dbus-launch
// where there is none, and can't be given a time limit.
func show(ctx context.Context, n notification) error {
	address := busAddress()
	if address == "" {
		return fmt.Errorf("%w: there is no D-Bus session bus", errNobody)
	}
	conn, err := dbus.Connect(address, dbus.WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: no D-Bus session bus answers: %w", errNobody, err)
	}
	defer func() { _ = conn.Close() }()
	service := conn.Object(notifyName, notifyPath)

	var able []string
	if err := service.CallWithContext(ctx, notifyName+".GetCapabilities", 0).Store(&able); err != nil {
		return busFailure(err)
	}
	body := n.Body
	if slices.Contains(able, "body-markup") {
		body = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(body)
	}
	call := service.CallWithContext(ctx, notifyName+".Notify", 0, "keyfob", uint32(0), notifyIcon, n.Title, body,
		[]string{}, map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgencyNorm)}, int32(-1))
	return busFailure(call.Err)
}

// busFailure tells a session that has nothing to show notifications with
// from a failure.
func busFailure(err error) error {
	var e dbus.Error
	if errors.As(err, &e) {
		switch {
		case e.Name == "org.freedesktop.DBus.Error.ServiceUnknown", e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner",
			strings.HasPrefix(e.Name, "org.freedesktop.DBus.Error.Spawn."):
			return fmt.Errorf("%w: nothing in this session shows notifications", errNobody)
		}
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	return err
}

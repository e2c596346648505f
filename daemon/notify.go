package daemon

import (
	"fmt"
	"time"

	"keyfob/internal/broker"
	"keyfob/internal/interact"
	"keyfob/internal/logging"
)

// notifyEnd is how long the end of the daemon waits for a notification that
// is being shown.
const notifyEnd = 2 * time.Second

// newNotifier returns what shows notifications, nil where keyfob-signin is
// not beside this program. A daemon that serves a whole machine is nobody's
// session: its notifications would find no desktop and end there.
func (d *daemon) newNotifier() *interact.Notifier {
	if d.system() {
		return nil
	}
	path, err := besideSelf(interact.SigninName)
	if err != nil {
		d.log.WithError(err).Debug("no desktop notifications")
		return nil
	}
	return interact.NewNotifier(interact.NotifierConfig{Program: path, Environ: d.opt.Env, Log: d.log})
}

// announce tells the person that a session ends soon which only they can
// renew. The broker says so once for each session.
func (d *daemon) announce(a broker.Announcement) {
	left := time.Until(a.Expires).Round(time.Minute)
	d.log.WithField(logging.Profile, a.Profile).WithField(logging.Expires, stampText(a.Expires)).Warn("a session ends soon and needs a person")
	if d.notifier == nil {
		return
	}
	d.notifier.Notify("keyfob: "+a.Profile+" needs you soon",
		fmt.Sprintf("The session of %s ends in %s. To renew it: %s", a.Profile, left, a.Hint))
}

package daemon

import (
	"keyfob/internal/cred"
)

// recorder takes what is to be recorded, whatever the settings say of it now.
type recorder daemon

func (d *daemon) recorder() cred.Recorder { return (*recorder)(d) }

// Record notes one hand-out or refusal.
func (r *recorder) Record(e cred.Event) {}

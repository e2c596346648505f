//go:build linux || darwin

package signin

import (
	"errors"
	"net"
	"os"
	"path/filepath"
)

// set adds or replaces variables.
func (d *desk) set(kvs ...string) *desk {
	d.env = append(d.env, kvs...) // the last one counts
	return d
}

// display makes the session a graphical one: something answers there.
func (d *desk) display() *desk {
	d.t.Helper()
	l, err := net.Listen("unix", filepath.Join(d.dir, "run", "wayland-7"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = l.Close() })
	return d.set("WAYLAND_DISPLAY=wayland-7")
}

// program installs a shell script.
func (d *desk) program(name, script string) *desk {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, "bin", name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		d.t.Fatal(err)
	}
	return d
}

// file is what a script has written, "" for nothing.
func (d *desk) file(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
	return string(b)
}

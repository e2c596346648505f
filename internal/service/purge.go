package service

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"keyfob/internal/settings"
)

// dataPlaces are the directories that the machine's daemon owns, and its
// settings.
func (c Config) dataPlaces() []string {
	switch c.Platform {
	case "windows":
		return []string{filepath.Join(c.Getenv("ProgramData"), "keyfob")}
	case "launchd":
		return []string{c.at("/Library/Application Support/keyfob"), c.at("/Library/Logs/keyfobd.log")}
	case "openrc":
		return []string{c.at("/var/lib/keyfob"), c.at("/etc/keyfob"), c.at("/var/log/keyfob")}
	}
	return []string{c.at("/var/lib/keyfob"), c.at("/etc/keyfob")}
}

// leftovers says what stays after an uninstall, or has it removed.
func (m *Manager) leftovers(p *Plan) {
	c := m.c
	if !c.System {
		if p.Empty() {
			return
		}
		if s, err := settings.Load(c.flags(), c.Getenv); err == nil && c.Root == "" {
			stays(p, []string{s.DataDir, filepath.Dir(s.ConfigFile)}, "", "")
		}
		return
	}
	hasUser := c.Platform != "windows" && c.Platform != "launchd" && userExists(c)
	if !c.Purge {
		if !p.Empty() {
			who := ""
			if hasUser {
				who = "the user " + SystemUser
			}
			stays(p, c.dataPlaces(), who, "; --purge removes them")
		}
		return
	}
	for _, path := range c.dataPlaces() {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		p.Steps = append(p.Steps, Step{Do: "remove " + path + " and all that is in it", do: func(context.Context) error {
			if err := os.RemoveAll(path); err != nil {
				return fileError("remove", path, err)
			}
			return nil
		}})
	}
	if hasUser {
		argv := []string{"userdel", SystemUser}
		if _, err := exec.LookPath("userdel"); err != nil { // busybox
			argv = []string{"deluser", SystemUser}
		}
		p.Steps = append(p.Steps, Step{Run: argv})
	}
}

// stays notes those of the paths that exist, and who, with what else there is
// to say.
func stays(p *Plan, paths []string, who, also string) {
	var there []string
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			there = append(there, path)
		}
	}
	if who != "" {
		there = append(there, who)
	}
	verb := " stay"
	switch {
	case len(there) == 0:
		return
	case len(there) == 1:
		verb = " stays"
	}
	p.Notes = append(p.Notes, strings.Join(there, ", ")+verb+also)
}

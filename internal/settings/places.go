package settings

import (
	"fmt"
	"path/filepath"
	"runtime"
)

// maxSocketPath is what sun_path holds, less the NUL: 108 bytes on Linux,
// 104 on macOS and the BSDs.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

func (s *Settings) chooseSocket(explicit string, d dirs) *Error {
	s.SystemSocket = systemSocket()
	if s.System && explicit == "" {
		s.Socket = s.SystemSocket
		return nil
	}
	if runtime.GOOS == "windows" {
		s.SocketExplicit = explicit != ""
		s.Socket = explicit
		if explicit == "" {
			sid, err := userSID()
			if err != nil {
				return &Error{Message: fmt.Sprintf("cannot tell which user this is: %v", err)}
			}
			s.Socket = `\\.\pipe\keyfob-` + sid
		}
		return nil
	}
	if explicit != "" {
		s.Socket, s.SocketExplicit = explicit, true
		if len(s.Socket) > maxSocketPath() {
			return &Error{Message: fmt.Sprintf("cannot use the socket %s: its path has %d bytes, a socket's may have %d", s.Socket, len(s.Socket), maxSocketPath()),
				Help: "a shorter path with --socket or KEYFOB_SOCKET"}
		}
		return nil
	}
	s.Socket = defaultSocket(d.runtime, s.DataDir)
	if len(s.Socket) > maxSocketPath() {
		return &Error{Message: fmt.Sprintf("cannot use the socket %s: its path has %d bytes, a socket's may have %d", s.Socket, len(s.Socket), maxSocketPath()),
			Help: "set XDG_RUNTIME_DIR, or a shorter path with --socket or KEYFOB_SOCKET"}
	}
	return nil
}

// systemSocket is where the daemon of a machine listens (package control knows
// it too, to trust whoever serves it).
func systemSocket() string {
	switch runtime.GOOS {
	case "windows":
		return `\\.\pipe\keyfob-system`
	case "darwin":
		return "/var/run/keyfob/keyfob.sock"
	}
	return "/run/keyfob/keyfob.sock"
}

func defaultSocket(runtimeDir, dataDir string) string {
	if runtimeDir != "" {
		if p := filepath.Join(runtimeDir, "keyfob", "keyfob.sock"); len(p) <= maxSocketPath() {
			return p
		}
	}
	return filepath.Join(dataDir, "keyfob.sock")
}

// dirs are the usual places. aws is where the AWS files are.
type dirs struct{ home, config, data, runtime, aws string }

// placesOf gives the places of a person's daemon, or of a machine's.
func placesOf(system bool, env func(string) string) (dirs, *Error) {
	if system {
		return systemDirs(env), nil
	}
	return platformDirs(env)
}

// systemDirs are the machine's places. HOME and XDG_* have no say in them: the
// AWS files of whoever starts the daemon are not the machine's.
func systemDirs(env func(string) string) dirs {
	var d dirs
	switch runtime.GOOS {
	case "windows":
		data := filepath.Join(first(env("PROGRAMDATA"), `C:\ProgramData`), "keyfob")
		d = dirs{home: data, config: data, data: data}
	case "darwin":
		const support = "/Library/Application Support/keyfob"
		d = dirs{home: support, config: support, data: support}
	default:
		d = dirs{home: "/var/lib/keyfob", config: "/etc/keyfob", data: "/var/lib/keyfob"}
	}
	d.aws = filepath.Join(d.config, "aws")
	return d
}

// platformDirs gives the directories by the platform's custom. A relative
// XDG variable is ignored, as the XDG base directory specification demands.
func platformDirs(env func(string) string) (dirs, *Error) {
	var d dirs
	d.home = env("HOME")
	if runtime.GOOS == "windows" {
		d.home = first(env("USERPROFILE"), d.home)
	}
	if d.home == "" {
		return d, &Error{Message: "cannot tell where the home directory is", Help: "set HOME"}
	}
	d.aws = filepath.Join(d.home, ".aws")
	xdg := func(name, def string) string {
		if v := env(name); filepath.IsAbs(v) {
			return v
		}
		return def
	}
	switch runtime.GOOS {
	case "windows":
		local := first(env("LOCALAPPDATA"), filepath.Join(d.home, "AppData", "Local"))
		d.config, d.data = filepath.Join(local, "keyfob"), filepath.Join(local, "keyfob")
	case "darwin":
		support := filepath.Join(d.home, "Library", "Application Support")
		d.config = filepath.Join(xdg("XDG_CONFIG_HOME", support), "keyfob")
		d.data = filepath.Join(xdg("XDG_DATA_HOME", support), "keyfob")
		d.runtime = xdg("XDG_RUNTIME_DIR", "")
	default:
		d.config = filepath.Join(xdg("XDG_CONFIG_HOME", filepath.Join(d.home, ".config")), "keyfob")
		d.data = filepath.Join(xdg("XDG_DATA_HOME", filepath.Join(d.home, ".local", "share")), "keyfob")
		d.runtime = xdg("XDG_RUNTIME_DIR", "")
	}
	return d, nil
}

package settings

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// chooseAudit decides how the audit log is kept, and where else its lines go.
func (s *Settings) chooseAudit(d *decider) {
	a := &d.file.Audit
	s.Audit.Off = a.Enabled != nil && !*a.Enabled
	if a.MaxSize != nil {
		n, ok := size(a.MaxSize)
		if !ok || n < minAuditSize {
			d.wrong("audit.max_size", `a size such as "16MiB", 64KiB or more`, "audit.max_size is %q", fmt.Sprint(a.MaxSize))
		}
		s.Audit.MaxSize = n
	}
	if a.Keep != nil {
		if *a.Keep < 1 || *a.Keep > 10000 {
			d.wrong("audit.keep", "how many older files are kept, 1 to 10000", "audit.keep is %d", *a.Keep)
		}
		s.Audit.Keep = *a.Keep
	}
	s.Audit.Journal = a.Journal
	if s.Audit.Syslog = a.Syslog; a.Syslog != "" && !isSyslog(a.Syslog) {
		d.wrong("audit.syslog", `"unix:///dev/log", "udp://HOST:PORT", "tcp://HOST:PORT" or "tls://HOST:PORT"`, "audit.syslog is %q", a.Syslog)
	}
	if s.Audit.OTLP = a.OTLP; a.OTLP != "" && !isURL(a.OTLP) {
		d.wrong("audit.otlp", `a full URL, such as "http://127.0.0.1:4318/v1/logs"`, "audit.otlp is %q", a.OTLP)
	}
}

// isSyslog reports whether s says where a syslog server is.
func isSyslog(s string) bool {
	scheme, rest, _ := strings.Cut(s, "://")
	switch scheme {
	case "unix":
		return filepath.IsAbs(rest) && len(rest) <= maxSocketPath()
	case "udp", "tcp", "tls":
		i := strings.LastIndexByte(rest, ':')
		if i <= 0 || !isHost(rest[:i]) {
			return false
		}
		port, err := strconv.ParseUint(rest[i+1:], 10, 16)
		return err == nil && port > 0
	}
	return false
}

const minAuditSize = 64 << 10

// size reads a number of bytes, or a text such as "16MiB".
func size(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case string:
		v = strings.ToLower(strings.TrimSpace(v))
		i := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' })
		if i < 0 {
			i = len(v)
		}
		units := map[string]int64{"": 1, "b": 1, "kb": 1e3, "kib": 1 << 10, "mb": 1e6, "mib": 1 << 20, "gb": 1e9, "gib": 1 << 30}
		unit, ok := units[strings.TrimSpace(v[i:])]
		n, err := strconv.ParseInt(v[:i], 10, 64)
		if err != nil || !ok || n > (1<<62)/unit {
			return 0, false
		}
		return n * unit, true
	}
	return 0, false
}

// chooseMetrics: what is counted is nobody's business but this machine's.
func (s *Settings) chooseMetrics(d *decider) {
	v := d.file.Metrics.Listen
	if v == "" {
		return
	}
	const help = `"unix:/path" or a loopback address and a port, such as "127.0.0.1:9912"`
	if path, isUnix := strings.CutPrefix(v, "unix:"); isUnix {
		path = d.filePath(path)
		if path == d.filePath("") || len(path) > maxSocketPath() || path == s.Socket {
			d.wrong("metrics.listen", help, "metrics.listen is %q", v)
			return
		}
		s.Metrics = "unix:" + path
		return
	}
	addr, err := splitListen(v)
	if err != nil {
		d.wrong("metrics.listen", help, "it is not possible to listen on %q: %v", v, err)
		return
	}
	host := strings.Trim(addr[:strings.LastIndexByte(addr, ':')], "[]")
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		d.wrong("metrics.listen", help, "metrics.listen is %q, which is no loopback address", v)
		return
	}
	if host == "localhost" {
		addr = "127.0.0.1" + addr[strings.LastIndexByte(addr, ':'):]
	}
	for _, e := range s.Endpoints {
		if e.Listen == addr && !strings.HasSuffix(addr, ":0") {
			d.wrong("metrics.listen", help, "%s is the address of an endpoint too", addr)
		}
	}
	s.Metrics = addr
}

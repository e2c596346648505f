package imds

// Live is what may change while a server serves.
type Live struct {
	Hosts             []string // as in MetadataConfig and ContainerConfig
	IMDSv1            bool
	AllowUnidentified bool
	Policy            string
	// Certificate makes a container endpoint speak TLS, and nothing else; nil
	// is plain http. Connections that were made in the other way end with
	// their next request. The names of the certificate, and Hosts, are then
	// all that Host may be.
	Certificate *Certificate
}

// live is a Live, ready to be asked. It is not changed after it was made.
type live struct {
	Live
	guard *guard
}

// Configure puts other settings in force for every request from now on, also
// on connections that are open. The listener and the profile (see ProfileOf)
// are not among them.
func (s *Server) Configure(l Live) {
	g := newGuard(s.listener.Addr(), l.Hosts)
	if l.Certificate != nil {
		g = newSecureGuard(s.listener.Addr(), l.Hosts, l.Certificate)
	}
	s.live.Store(&live{Live: l, guard: g})
}

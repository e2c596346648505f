package sso

import (
	"errors"
	"net"
)

// notFound reports whether err says that a host's name does not exist.
func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

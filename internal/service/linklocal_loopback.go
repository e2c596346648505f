//go:build !darwin

package service

import "net"

// loopback is the loopback interface.
func loopback() (net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return net.Interface{}, err
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return i, nil
		}
	}
	return net.Interface{}, fail("", "cannot find the loopback interface")
}

// Package daemon is keyfobd: it wires the parts together, owns the
// listeners and the control socket, and decides life and death. It holds no
// rule of its own about credentials; those stand in internal/broker,
// internal/access and profiles.
package daemon

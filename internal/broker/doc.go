// Package broker is the only way to a credential: it turns a request into a
// chain of links, keeps one session per link fresh, and hands out snapshots
// of the last link's.
//
// What is refreshed is a link, named by its cred.LinkKey, never a profile:
// profiles whose chains share a link share its session, in memory and in the
// vault. Three kinds of goroutine exist. Callers read an atomic snapshot and
// wait only when there is none. One refresher per active link makes its
// attempts, one at a time, and alone publishes what it got. One minder wakes
// the refreshers: it has the only timer, sleeps a minute at most while links
// are active, and has none while nothing is.
//
// Lock order: Broker.mu before link.mu; link.storeMu is taken with neither
// held and may be held over calls of the Store.
package broker

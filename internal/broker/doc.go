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
// A profile is active from the first request for it until nobody has asked in
// three hours (SDKs come back at least hourly), or for good when it is an
// endpoint's; only then do its links have refreshers. A session that is good
// is refreshed ahead; one that needs a person is used to its end. A session
// that was never there is tried again only when somebody asks.
//
// The ends of sessions are judged by the wall clock, corrected by what is
// known of AWS's, and by the monotonic clock, whichever says that more time
// has passed. Snapshots carry them by our own clock, because that is what
// clients judge them by; records carry them by AWS's. A session that seems to
// have ended is not deleted for it: AWS's next answer may tell that our clock
// is wrong.
//
// An attempt that got no HTTP answer starts a back-off that ends early when
// a probe, a plain TCP connect at most every 5 s for each upstream, connects
// after one that did not. Probes are short goroutines that the minder starts
// while such a back-off lasts. A gate bounds the attempts that call upstreams
// at once. A session that only a person can renew is announced once before
// it ends, if somebody used it lately.
//
// Lock order: Broker.mu before link.mu; those of network and gate are leaves; link.storeMu is taken with neither
// held and may be held over calls of the Store.
package broker

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
// A session policy, of a request or of the rules, is part of the last link's
// parameters and so makes a session of its own. Rules that change hold also
// for who is waiting. A protected profile is handed out, from memory too,
// only after Config.Confirm said yes.
//
// A sign-in (cred.SignInSource) lies behind links and is none: its links are
// refreshed ahead, share the key under which they ask, and are all tried again
// once one of them shows that somebody has signed in. Its end is read once a
// minute and announced like that of a session. Nobody is asked for anything
// while there is no way to the upstream.
//
// An attempt that got no HTTP answer starts a back-off that ends early when
// a probe, a plain TCP connect at most every 5 s for each upstream, connects
// after one that did not. Probes are short goroutines that the minder starts
// while such a back-off lasts. A gate bounds the attempts that call upstreams
// at once. Refreshes that can wait leave an upstream that limits the rate of
// calls alone, but for one that looks whether it is over. A session that only
// a person can renew is announced once before it ends, if somebody used it
// lately.
//
// Lock order: Broker.mu before link.mu; those of network, gate, brake and
// signIns are leaves, and pass.mu comes before gate.mu; link.storeMu is taken
// with neither Broker.mu nor link.mu held and may be held over calls of the
// Store.
package broker

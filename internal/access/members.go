package access

import (
	"context"
	"fmt"
	"os/user"
	"slices"
	"sync"
	"time"
)

// Times and numbers of members.
const (
	membersAge   = time.Minute     // after which a user's groups are looked up again
	membersRetry = 5 * time.Second // and after a look-up that failed
	membersKept  = 1024            // users whose groups are kept
	membersLimit = 2 * time.Second // of a look-up beyond files
)

// members knows the groups of users. A rule by group speaks of the user, not
// of the process: the groups are those that the system's databases give him
// now, and not those that the calling process runs with (SO_PEERGROUPS,
// /proc/PID/status). A process keeps its groups for as long as it lives,
// whatever an administrator takes away; it can have more than its user
// through a setgid program; and at a TCP port it is known only after a
// search, so that the same user would be judged in two ways at two exits.
type members struct {
	files func(uid string) ([]string, error)                      // what this machine's own files say
	more  func(ctx context.Context, uid string) ([]string, error) // what every database says; nil where files are all

	mu      sync.Mutex // guards what follows
	kept    map[string]membership
	finding map[string]chan struct{} // look-ups under way; closed at their end
}

// membership is what was found out about one user. It is not changed after
// it was made.
type membership struct {
	gids  []string
	whole bool // no database was left out
	err   error
	until time.Time
}

func newMembers() *members {
	return &members{kept: map[string]membership{}, finding: map[string]chan struct{}{}, files: groupsOf, more: moreGroups()}
}

// in reports whether the user is in one of the groups. Its error says that
// this could not be found out, which is no.
func (m *members) in(uid string, gids []string) (bool, error) {
	for {
		m.mu.Lock()
		have := m.kept[uid]
		if time.Now().Before(have.until) {
			if in := have.has(gids); in || have.whole {
				m.mu.Unlock()
				if in {
					return true, nil
				}
				return false, have.err
			}
		}
		other := m.finding[uid]
		if other == nil {
			break
		}
		m.mu.Unlock()
		<-other // find bounds itself
	}
	done := make(chan struct{})
	m.finding[uid] = done
	m.mu.Unlock()
	have := m.find(uid, gids)
	m.mu.Lock()
	if len(m.kept) >= membersKept {
		clear(m.kept)
	}
	m.kept[uid] = have
	delete(m.finding, uid)
	m.mu.Unlock()
	close(done)
	if have.has(gids) {
		return true, nil
	}
	return false, have.err
}

// find looks a user's groups up, in files first: where they say yes to one of
// gids nothing else is asked.
func (m *members) find(uid string, gids []string) membership {
	var found membership
	var err error
	found.gids, err = m.files(uid)
	if m.more != nil && !found.has(gids) {
		var all []string
		ctx, cancel := context.WithTimeout(context.Background(), membersLimit)
		defer cancel()
		all, err = m.more(ctx, uid)
		found.gids = append(found.gids, all...)
	}
	found.whole = m.more == nil || !found.has(gids)
	found.until = time.Now().Add(membersAge)
	if err != nil && !found.has(gids) {
		found.err = fmt.Errorf("cannot tell the groups of user %s: %w", uid, err)
		found.until = time.Now().Add(membersRetry)
	}
	return found
}

func (m *membership) has(gids []string) bool {
	for _, g := range gids {
		if slices.Contains(m.gids, g) {
			return true
		}
	}
	return false
}

// groupsOf is what package os/user knows: without cgo, on Unix, what stands
// in /etc/passwd and /etc/group.
func groupsOf(uid string) ([]string, error) {
	u, err := user.LookupId(uid)
	if err != nil {
		return nil, err
	}
	return u.GroupIds()
}

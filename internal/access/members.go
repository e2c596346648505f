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
	membersAge   = time.Minute // after which a user's groups are looked up again
	membersKept  = 1024        // users whose groups are kept
	membersLimit = 2 * time.Second
)

// members knows the groups of users. A rule by group speaks of the user, not
// of the process: the groups are those that the system's databases give him
// now, and not those that the calling process runs with (SO_PEERGROUPS,
// /proc/PID/status). A process keeps its groups for as long as it lives,
// whatever an administrator takes away; it can have more than its user
// through a setgid program; and at a TCP port it is known only after a
// search, so that the same user would be judged in two ways at two exits.
type members struct {
	mu    sync.RWMutex // guards kept
	kept  map[string]membership
	files func(uid string) ([]string, error)                      // what this machine's own files say
	more  func(ctx context.Context, uid string) ([]string, error) // what every database says; nil where files are all
}

// membership is what was found out about one user. It is not changed after
// it was made.
type membership struct {
	gids  []string
	whole bool // every database was asked
	err   error
	until time.Time
}

func newMembers() *members {
	return &members{kept: map[string]membership{}, files: groupsOf, more: moreGroups()}
}

// in reports whether the user is in one of the groups. Its error says that
// this could not be found out, which is no.
func (m *members) in(uid string, gids []string) (bool, error) {
	now := time.Now()
	m.mu.RLock()
	have, ok := m.kept[uid]
	m.mu.RUnlock()
	if ok && now.Before(have.until) {
		if have.has(gids) {
			return true, nil
		}
		if have.whole {
			return false, have.err
		}
	}
	have = m.find(uid, gids, now)
	m.mu.Lock()
	if len(m.kept) >= membersKept {
		clear(m.kept)
	}
	m.kept[uid] = have
	m.mu.Unlock()
	if have.has(gids) {
		return true, nil
	}
	return false, have.err
}

func (m *members) find(uid string, gids []string, now time.Time) membership {
	found := membership{until: now.Add(membersAge), whole: true}
	files, err := m.files(uid)
	found.gids = files
	if m.more == nil {
		if err != nil {
			found.err = fmt.Errorf("cannot tell the groups of user %s: %w", uid, err)
		}
		return found
	}
	if found.has(gids) {
		found.whole = false // a yes of the files is enough
		return found
	}
	ctx, cancel := context.WithTimeout(context.Background(), membersLimit)
	defer cancel()
	all, err := m.more(ctx, uid)
	if err != nil {
		found.err = fmt.Errorf("cannot tell the groups of user %s: %w", uid, err)
	}
	found.gids = append(found.gids, all...)
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

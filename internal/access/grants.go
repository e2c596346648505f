package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

const (
	grantPrefix  = "grant/" // of the Store's records
	grantVersion = 1        // of a record's form
	tokenBytes   = 32       // of randomness in a grant's token
	idBytes      = 16       // of randomness in its id, which alone opens a relative grant
)

// Grant opens the container endpoint for some profiles. It holds no secret:
// the token stands in TokenFile, and here only as a hash.
type Grant struct {
	Version  int      `json:"version"`
	ID       string   `json:"id"` // 32 hex digits; unguessable, for it opens a relative grant
	Profiles []string `json:"profiles"`
	UID      string   `json:"uid"`                // of its creator, who alone may use it
	AnyUser  bool     `json:"any_user,omitempty"` // or anybody who has the token
	// Expires is when it ends, zero for never.
	Expires  time.Time `json:"expires,omitzero"`
	Note     string    `json:"note,omitempty"`
	Relative bool      `json:"relative,omitempty"` // its id in the path is enough, as on ECS
	// ExecPID and ExecStart name the process for which exec made it; it ends
	// with that. 0 for every other grant.
	ExecPID   int    `json:"exec_pid,omitempty"`
	ExecStart uint64 `json:"exec_start,omitempty"`
	// RoleARN is the role that --role-arn named, in place of the profile's;
	// Implicit that no flag named the profile. Both are cred.Request's.
	RoleARN  string `json:"role_arn,omitempty"`
	Implicit bool   `json:"implicit,omitempty"`
	// Policy is the session policy of what it opens, by
	// cred.SessionPolicy.Encode, "" for none.
	Policy string `json:"policy,omitempty"`
	// Confirmed says that a person agreed to it when it was made: without
	// that it opens no protected profile.
	Confirmed bool      `json:"confirmed,omitempty"`
	TokenFile string    `json:"token_file,omitempty"`
	Created   time.Time `json:"created"`
}

// Expired reports whether the grant has ended by the clock.
func (g *Grant) Expired(now time.Time) bool { return !g.Expires.IsZero() && !now.Before(g.Expires) }

// Covers reports whether the grant names the profile.
func (g *Grant) Covers(profile string) bool { return slices.Contains(g.Profiles, profile) }

// GrantSpec is what Add makes a grant of; the fields are Grant's.
type GrantSpec struct {
	Profiles []string
	UID      string
	AnyUser  bool
	Expires  time.Time
	Note     string
	Relative bool
	ExecPID  int
	// ExecStart is found by Add when it is 0 and ExecPID is not.
	ExecStart uint64
	RoleARN   string
	Implicit  bool
	Policy    string
	Confirmed bool
	// TokenFile is an absolute path, "" for one of Add's choice.
	TokenFile string
}

// storedGrant is a record's form, and what is kept in memory. It is not
// changed after it was made.
type storedGrant struct {
	Grant
	TokenHash string `json:"token_sha256"` // hex
	hash      [sha256.Size]byte
}

// grantTable is what readers look into. It is not changed after it was made.
type grantTable struct {
	byHash map[[sha256.Size]byte]*storedGrant
	byID   map[string]*storedGrant
}

// Grants are the grants of the container endpoint. They are read from memory
// and written to the Store first, so that they outlive a restart; while the
// Store is locked those in memory still serve, and none can be added.
type Grants struct {
	store cred.Store
	dir   string

	table atomic.Pointer[grantTable] // never nil

	// mu keeps changes (table, records, token files) one after the other.
	// It also guards ended.
	mu sync.Mutex
	// ended are profiles whose grants were removed while records may still
	// have been unread: Load drops the grants made before that time.
	ended map[string]time.Time
}

// OpenGrants returns the grants kept in store, whose token files stand in
// dir. It reads and makes nothing; Load does.
func OpenGrants(store cred.Store, dir string) *Grants {
	g := &Grants{store: store, dir: dir, ended: map[string]time.Time{}}
	g.table.Store(&grantTable{})
	return g
}

// Load reads the Store's grants, beside those already in memory, and deletes
// those that have expired and the token files that belong to none. Call it
// again after the Store was unlocked. Errors: cred.ErrLocked when records
// could not be read; otherwise a record that can't be used (its name, never
// its content), after all others were loaded.
func (g *Grants) Load(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	names, err := g.store.List(ctx, grantPrefix)
	if err != nil {
		return fmt.Errorf("cannot list the grants: %w", err)
	}
	now := time.Now()
	loaded := maps.Clone(g.table.Load().byID)
	if loaded == nil {
		loaded = map[string]*storedGrant{}
	}
	var problems []error
	for _, name := range names {
		if _, have := loaded[name[len(grantPrefix):]]; have {
			continue
		}
		s, err := g.read(ctx, name)
		if errors.Is(err, cred.ErrLocked) {
			return fmt.Errorf("cannot read the grants: %w", err)
		}
		if errors.Is(err, cred.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("cannot read record %s: %w", name, err))
			continue
		}
		if s.Expired(now) || g.hasEnded(s) {
			problems = append(problems, g.forget(ctx, s))
			continue
		}
		loaded[s.ID] = s
	}
	g.publish(loaded)
	if len(problems) == 0 {
		clear(g.ended)
		problems = append(problems, g.sweepFiles())
	}
	return errors.Join(problems...)
}

func (g *Grants) read(ctx context.Context, name string) (*storedGrant, error) {
	record, err := g.store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	s := &storedGrant{}
	if err := json.Unmarshal(record.AppendReveal(nil), s); err != nil {
		return nil, errors.New("it is not a grant")
	}
	if s.Version != grantVersion {
		return nil, fmt.Errorf("it has version %d, and this keyfob knows version %d", s.Version, grantVersion)
	}
	hash, err := hex.DecodeString(s.TokenHash)
	if err != nil || len(hash) != sha256.Size || grantPrefix+s.ID != name || len(s.Profiles) == 0 || s.UID == "" {
		return nil, errors.New("it is not a grant")
	}
	s.hash = [sha256.Size]byte(hash)
	return s, nil
}

func (g *Grants) hasEnded(s *storedGrant) bool {
	for _, p := range s.Profiles {
		if at, ok := g.ended[p]; ok && !s.Created.After(at) {
			return true
		}
	}
	return false
}

// publish makes the table that readers see.
func (g *Grants) publish(byID map[string]*storedGrant) {
	t := &grantTable{byID: byID, byHash: make(map[[sha256.Size]byte]*storedGrant, len(byID))}
	for _, s := range byID {
		t.byHash[s.hash] = s
	}
	g.table.Store(t)
}

// Add makes a grant: writes its token to a file (0600, no line feed at the
// end), its record to the Store, and returns it with the token, which is
// kept nowhere else. On an error nothing of it remains. Errors:
// cred.ErrLocked when the Store is; others name the file or the setting.
func (g *Grants) Add(ctx context.Context, spec GrantSpec) (*Grant, cred.Secret, error) {
	now := time.Now()
	if len(spec.Profiles) == 0 {
		return nil, cred.Secret{}, errors.New("cannot make a grant without a profile")
	}
	if spec.UID == "" {
		return nil, cred.Secret{}, errors.New("cannot make a grant for a caller who is not identified")
	}
	if !spec.Expires.IsZero() && !now.Before(spec.Expires) {
		return nil, cred.Secret{}, errors.New("cannot make a grant that has expired already")
	}
	s := &storedGrant{Grant: Grant{
		Version: grantVersion, Profiles: slices.Clone(spec.Profiles), UID: spec.UID, AnyUser: spec.AnyUser,
		Note: spec.Note, Relative: spec.Relative, ExecPID: spec.ExecPID, ExecStart: spec.ExecStart,
		RoleARN: spec.RoleARN, Implicit: spec.Implicit, Policy: spec.Policy, Confirmed: spec.Confirmed,
		TokenFile: spec.TokenFile, Created: now.UTC().Truncate(time.Millisecond),
	}}
	if !spec.Expires.IsZero() {
		s.Expires = spec.Expires.UTC()
	}
	if s.ExecPID != 0 && s.ExecStart == 0 {
		start, err := peer.StartTime(s.ExecPID)
		if err != nil {
			return nil, cred.Secret{}, fmt.Errorf("cannot make a grant for process %d: %w", s.ExecPID, err)
		}
		s.ExecStart = start
	}
	var id [idBytes]byte
	var secret [tokenBytes]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	rand.Read(secret[:])
	s.ID = hex.EncodeToString(id[:])
	token := base64.RawURLEncoding.EncodeToString(secret[:])
	s.hash = sha256.Sum256([]byte(token))
	s.TokenHash = hex.EncodeToString(s.hash[:])

	g.mu.Lock()
	defer g.mu.Unlock()
	if s.TokenFile == "" {
		if err := privateDir(g.dir); err != nil {
			return nil, cred.Secret{}, err
		}
		s.TokenFile = filepath.Join(g.dir, s.ID+tokenSuffix)
	} else if err := mayReplace(s.TokenFile); err != nil {
		return nil, cred.Secret{}, err
	}
	record, err := json.Marshal(s)
	if err != nil {
		return nil, cred.Secret{}, fmt.Errorf("cannot make a grant: %w", err)
	}
	if err := writeToken(s.TokenFile, token); err != nil {
		return nil, cred.Secret{}, err
	}
	if err := g.store.Put(ctx, grantPrefix+s.ID, cred.SecretBytes(record)); err != nil {
		removeToken(s)
		return nil, cred.Secret{}, fmt.Errorf("cannot keep the grant: %w", err)
	}
	byID := maps.Clone(g.table.Load().byID)
	if byID == nil {
		byID = map[string]*storedGrant{}
	}
	byID[s.ID] = s
	g.publish(byID)
	return s.copy(), cred.NewSecret(token), nil
}

func (s *storedGrant) copy() *Grant {
	c := s.Grant
	c.Profiles = slices.Clone(c.Profiles)
	return &c
}

// Remove revokes a grant: at once for requests, then in the Store. Errors:
// cred.ErrNotFound when there is no such grant; one of the Store, after
// which the grant is revoked until the next start.
func (g *Grants) Remove(ctx context.Context, id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, ok := g.table.Load().byID[id]; ok {
		return g.drop(ctx, s)
	}
	// Perhaps not loaded yet: a locked Store can still delete it.
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != idBytes {
		return fmt.Errorf("cannot remove grant %q: %w", id, cred.ErrNotFound)
	}
	if err := g.store.Delete(ctx, grantPrefix+id); err != nil {
		return fmt.Errorf("cannot remove grant %s: %w", id, err)
	}
	return nil
}

// RemoveProfile revokes the grants that name the profile, whatever else they
// name. Errors as for Remove; all are tried.
func (g *Grants) RemoveProfile(ctx context.Context, profile string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended[profile] = time.Now()
	return g.dropAll(ctx, func(s *storedGrant) bool { return s.Covers(profile) })
}

// PruneExec removes the grants that were made for a process that is gone.
// peer.Alive is the usual answer to alive.
func (g *Grants) PruneExec(ctx context.Context, alive func(pid int, start uint64) bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dropAll(ctx, func(s *storedGrant) bool { return s.ExecPID != 0 && !alive(s.ExecPID, s.ExecStart) })
}

// Prune removes the grants that have expired. They open nothing before that
// either.
func (g *Grants) Prune(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	return g.dropAll(ctx, func(s *storedGrant) bool { return s.Expired(now) })
}

// dropAll drops the grants in memory that which chooses.
func (g *Grants) dropAll(ctx context.Context, which func(*storedGrant) bool) error {
	var problems []error
	for _, s := range g.table.Load().byID {
		if which(s) {
			problems = append(problems, g.drop(ctx, s))
		}
	}
	return errors.Join(problems...)
}

// drop revokes a grant that is in memory.
func (g *Grants) drop(ctx context.Context, s *storedGrant) error {
	byID := maps.Clone(g.table.Load().byID)
	delete(byID, s.ID)
	g.publish(byID)
	return g.forget(ctx, s)
}

// forget deletes a grant's record and token file.
func (g *Grants) forget(ctx context.Context, s *storedGrant) error {
	removeToken(s)
	if err := g.store.Delete(ctx, grantPrefix+s.ID); err != nil && !errors.Is(err, cred.ErrNotFound) {
		return fmt.Errorf("cannot remove grant %s from the vault: %w", s.ID, err)
	}
	return nil
}

// List returns the grants in memory that have not expired, oldest first.
func (g *Grants) List() []Grant {
	now := time.Now()
	list := []Grant{}
	for _, s := range g.table.Load().byID {
		if !s.Expired(now) {
			list = append(list, *s.copy())
		}
	}
	slices.SortFunc(list, func(a, b Grant) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list
}

// ByToken returns the grant that this Authorization header opens, or
// ErrBadToken. The token is hashed before it is looked up, so that the time
// says nothing about how much of it is right. The Grant is shared and must
// not be changed.
func (g *Grants) ByToken(authorization string, now time.Time) (*Grant, error) {
	s, ok := g.table.Load().byHash[sha256.Sum256([]byte(authorization))]
	if !ok || s.Expired(now) {
		return nil, ErrBadToken
	}
	return &s.Grant, nil
}

// ByPath returns the relative grant of this id, or ErrBadToken. The Grant is
// shared and must not be changed.
func (g *Grants) ByPath(id string, now time.Time) (*Grant, error) {
	s, ok := g.table.Load().byID[id]
	if !ok || !s.Relative || s.Expired(now) {
		return nil, ErrBadToken
	}
	return &s.Grant, nil
}

// CheckGrant is Check for a request that the grant opened: nil, or a
// *Denied. The grant must name the profile; the caller must be its creator's
// user, unless it is for any user, which then replaces the endpoint's
// default of the owner alone. What rules say by name still holds. A protected
// profile takes a grant that a person confirmed.
func (r *RuleSet) CheckGrant(c peer.Caller, g *Grant, profile string, via cred.Endpoint) error {
	switch {
	case g == nil:
		return &Denied{Reason: "no grant"}
	case !g.Covers(profile):
		return &Denied{Reason: "the grant does not name this profile"} // not its id: it opens a relative grant
	case !g.AnyUser && (!c.Identified() || c.UID != g.UID):
		return &Denied{Reason: "the grant is another user's"}
	case !g.AnyUser && c.AtHome(context.Background()) != nil: // bounds itself
		return &Denied{Reason: "the grant is for a user, and the caller's process could not be identified"}
	case !g.Confirmed && r.Protected(profile):
		return &Denied{Reason: "the profile is protected, and no person confirmed the grant"}
	}
	return r.check(c, profile, via, g.AnyUser)
}

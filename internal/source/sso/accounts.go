package sso

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sso"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Account is one that is assigned to the person who signed in.
type Account struct {
	ID    string // twelve digits
	Name  string
	Email string
}

const (
	pageSize = 100    // the most that the portal gives
	maxPages = 10_000 // against a portal that never ends
	maxTries = 8      // of one page
	maxPause = 20 * time.Second
)

// ListAccounts returns the accounts that are assigned to the person of a
// sign-in, in the portal's order. link is an sso link; account and role need
// not be among its parameters. in says who is asked to sign in, where that is
// needed. Throttling and failures of the network are waited out, within ctx
// and a number of tries. Errors are those of Fetch.
func ListAccounts(ctx context.Context, link profiles.Link, d Deps, in cred.Input) ([]Account, error) {
	var list []Account
	err := pages(ctx, link, d, in, "ListAccounts", "", func(ctx context.Context, client *sso.Client, access, next *string) (*string, error) {
		out, err := client.ListAccounts(ctx, &sso.ListAccountsInput{AccessToken: access, MaxResults: aws.Int32(pageSize), NextToken: next})
		if err != nil {
			return nil, err
		}
		for _, a := range out.AccountList {
			list = append(list, Account{aws.ToString(a.AccountId), aws.ToString(a.AccountName), aws.ToString(a.EmailAddress)})
		}
		return out.NextToken, nil
	})
	return list, err
}

// ListRoles returns the names of the roles that are assigned to the person in
// one account; otherwise it is ListAccounts.
func ListRoles(ctx context.Context, link profiles.Link, d Deps, in cred.Input, account string) ([]string, error) {
	var list []string
	err := pages(ctx, link, d, in, "ListAccountRoles", account, func(ctx context.Context, client *sso.Client, access, next *string) (*string, error) {
		out, err := client.ListAccountRoles(ctx, &sso.ListAccountRolesInput{AccessToken: access, AccountId: aws.String(account), MaxResults: aws.Int32(pageSize), NextToken: next})
		if err != nil {
			return nil, err
		}
		for _, r := range out.RoleList {
			list = append(list, aws.ToString(r.RoleName))
		}
		return out.NextToken, nil
	})
	return list, err
}

// AccountRoles is an account with the names of the roles in it that are
// assigned to the person.
type AccountRoles struct {
	Account
	Roles []string
}

// atOnce is how many accounts Assignments asks about at a time: the portal
// limits the rate, and more gain little.
const atOnce = 4

// Assignments returns every account and role that is assigned to the person
// of a sign-in, in the portal's order; otherwise it is ListAccounts. An
// account that was unassigned meanwhile is left out.
func Assignments(ctx context.Context, link profiles.Link, d Deps, in cred.Input) ([]AccountRoles, error) {
	if d.Sessions == nil {
		d.Sessions = NewSessions() // one for all calls
	}
	accounts, err := ListAccounts(ctx, link, d, in)
	if err != nil {
		return nil, err
	}
	list := make([]AccountRoles, len(accounts))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(atOnce, len(accounts)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(accounts) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				roles, err := ListRoles(ctx, link, d, in, accounts[i].ID)
				var up *cred.UpstreamError
				if err != nil && !(errors.As(err, &up) && (up.Status == http.StatusForbidden || up.Status == http.StatusNotFound)) {
					cancel(err) // the first one's
					return
				}
				list[i] = AccountRoles{accounts[i], roles}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(a AccountRoles) bool { return len(a.Roles) == 0 }), nil
}

// pages calls get for each page of a list.
func pages(ctx context.Context, link profiles.Link, d Deps, in cred.Input, op, account string,
	get func(ctx context.Context, client *sso.Client, access, next *string) (*string, error)) error {
	si, err := newSignIn(link, d)
	if err != nil {
		return err
	}
	doing := "list the accounts of " + si.title()
	if op == "ListAccountRoles" {
		if !accountID.MatchString(account) {
			return unusable(link.Profile, quote(account)+" is no account id: it has twelve digits")
		}
		doing = "list the roles of account " + account
	}
	c := &caller{signIn: &si, in: in}
	s := si.d.Sessions.of(si.key())
	var next *string
	for range maxPages {
		err := s.with(ctx, c, func(t tokens) error {
			for try := 1; ; try++ {
				p := &call{signIn: c.signIn, op: op, doing: doing, service: servicePortal, target: account, secrets: []cred.Secret{t.access}}
				p.words = func(f awsclient.Failure) (string, string) { return c.portalWords(f, account, "") }
				err := p.do(ctx, func(ctx context.Context, cfg aws.Config) error {
					n, err := get(ctx, sso.NewFromConfig(cfg), aws.String(t.access.Reveal()), next)
					if err == nil {
						next = n
					}
					return err
				})
				if err == nil || try == maxTries || !errors.Is(err, cred.ErrUnavailable) || !sleep(ctx, max(pause(try), wanted(err))) {
					return err
				}
			}
		})
		if err != nil {
			return err
		}
		if aws.ToString(next) == "" {
			return nil
		}
	}
	return errors.New("cannot " + doing + ": the portal's list does not end")
}

// wanted is how long the portal says that callers must wait (Retry-After), 0
// where it does not, at most maxPause.
func wanted(err error) time.Duration {
	var says interface{ RetryAfter() time.Duration }
	if !errors.As(err, &says) {
		return 0
	}
	return min(says.RetryAfter(), maxPause)
}

// pause is how long to wait after a number of failed tries: from half a
// second to twice as much each time, anywhere in the upper half.
func pause(try int) time.Duration {
	d := min(500*time.Millisecond<<(try-1), maxPause)
	return d/2 + rand.N(d/2)
}

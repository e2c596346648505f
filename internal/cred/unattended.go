package cred

import "context"

type unattendedKey struct{}

// Unattended marks the context of a fetch for which nobody is there who asked
// for it: a refresh ahead of time, a metadata client. An Asker takes no person
// to a page for it, even where one is there for another reason; whoever wants
// to sign in makes a fetch of their own, with their own options.
func Unattended(ctx context.Context) context.Context {
	return context.WithValue(ctx, unattendedKey{}, true)
}

// IsUnattended reports whether ctx is Unattended's.
func IsUnattended(ctx context.Context) bool { return ctx.Value(unattendedKey{}) != nil }

// Package early does what package hot describes while keyfob's packages are
// being initialised. Only cmd/keyfob imports it: whoever does may not live to
// see its own main.
package early

import "keyfob/internal/hot"

// Version is keyfob's, set by the build as main.version is:
// -ldflags "-X keyfob/internal/hot/early.Version=…". A daemon of another
// version is left to package cli, which may have to replace it.
var Version = "dev"

// Answer is what hot.Ask found out, where that was not yet the end.
var Answer hot.Answer

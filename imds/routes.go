package imds

import (
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strings"
)

// accessKind says what opens a route beyond the guard and the caller's identity.
type accessKind uint8

const (
	// accessUndecided is the zero value: a route that names no access is
	// answered 403.
	accessUndecided accessKind = iota
	// accessRefused answers 403 to everybody.
	accessRefused
	// accessCaller asks for nothing more: the route that makes tokens.
	accessCaller
	// accessToken asks for an IMDSv2 token of this endpoint.
	accessToken
	// accessGrant asks for a grant's token in Authorization.
	accessGrant
	// accessGrantPath takes the path's last segment for the id of a relative
	// grant.
	accessGrantPath
)

// methods is what a route answers.
type methods uint8

const (
	methodGet methods = 1 << iota // GET and HEAD
	methodPut
)

// methodOf maps a request's method; 0 is one that no route has.
func methodOf(m string) methods {
	switch m {
	case http.MethodGet, http.MethodHead:
		return methodGet
	case http.MethodPut:
		return methodPut
	}
	return 0
}

// allow is the value of the Allow header.
func (m methods) allow() string {
	switch m {
	case methodPut:
		return "PUT"
	case methodGet | methodPut:
		return "GET, HEAD, PUT"
	}
	return "GET, HEAD"
}

// route is one row of a server's table.
type route struct {
	methods methods
	// pattern is the path. {version} stands for "latest" and every dated
	// version, {date} for the dated ones alone; any other {name} is a
	// parameter: one segment, unescaped. A path has at most one parameter.
	// {...} at the end stands for everything below its directory, as it came;
	// nothing else is below that directory.
	pattern string
	access  accessKind
	maxBody int64 // bytes of body that are read and ignored; 0 is none
	hidden  bool  // left out of listings, as on EC2

	// serve answers, or returns the fault to answer with. Instead of it a
	// route may have value, a plain text that is absent (404, not listed)
	// when empty.
	serve func(*exchange) *fault
	value func(*Facts) string
	// listed says whether a route with serve has a place in the listing of
	// its directory; nil is always.
	listed func(*Facts) bool
	// below is what there is below a directory whose pattern ends in {...}:
	// for its listing; serve answers.
	below func(*Facts) []leaf
}

// everything is the last segment of a pattern that takes all that is below
// a directory.
const everything = "{...}"

// versions are the dated versions that EC2 lists, in its order.
func versions() []string {
	return []string{
		"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10",
		"2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04", "2011-01-01",
		"2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20",
		"2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28", "2018-08-17",
		"2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23",
		"2021-07-15", "2022-07-09", "2022-09-24", "2024-04-11",
	}
}

const latest = "latest"

// node is one segment of the compiled table. Nodes are immutable once
// compiled.
type node struct {
	children map[string]*node // by literal segment
	param    *node
	rest     *node    // of {...}: nothing else is below this node then
	order    []string // the literal segments, sorted
	get, put *route
}

// allowed is what may be asked of this path.
func (n *node) allowed() methods {
	switch {
	case n == nil || n.get == nil && n.put == nil:
		return methodGet // a directory, or nothing: only a GET can find out which
	case n.get == nil:
		return methodPut
	case n.put == nil:
		return methodGet
	}
	return methodGet | methodPut
}

// tree is a compiled table.
type tree struct {
	root     *node
	listings bool // directories are listed, and a leaf may end in a slash
}

// compile builds the tree of a sorted table. It panics on a table that is
// wrong, because tables are written in the source and compiled in every test.
func compile(table []route, listings bool) *tree {
	t := &tree{root: &node{}, listings: listings}
	for i := range table {
		r := &table[i]
		if i > 0 && !rowLess(&table[i-1], r) {
			panic(fmt.Sprintf("route %q is out of order or there twice", r.pattern))
		}
		segments := strings.Split(strings.TrimPrefix(r.pattern, "/"), "/")
		starts := []*node{t.root}
		switch segments[0] {
		case "{version}":
			starts = []*node{t.root.child(latest), t.dated()}
			segments = segments[1:]
		case "{date}":
			starts = []*node{t.dated()}
			segments = segments[1:]
		}
		for _, n := range starts {
			for i, s := range segments {
				if s == everything && i != len(segments)-1 {
					panic(fmt.Sprintf("route %q goes on after %s", r.pattern, everything))
				}
				n = n.child(s)
			}
			n.set(r)
		}
	}
	t.root.sort()
	return t
}

func rowLess(a, b *route) bool {
	if a.pattern != b.pattern {
		return a.pattern < b.pattern
	}
	return a.methods < b.methods
}

// dated returns the one node that all dated versions share.
func (t *tree) dated() *node {
	var n *node
	for _, v := range versions() {
		if n == nil {
			n = t.root.child(v)
		}
		t.root.children[v] = n
	}
	return n
}

func (n *node) child(segment string) *node {
	if segment == everything {
		if n.rest == nil {
			n.rest = &node{}
		}
		return n.rest
	}
	if strings.HasPrefix(segment, "{") {
		if n.param == nil {
			n.param = &node{}
		}
		return n.param
	}
	if n.children == nil {
		n.children = map[string]*node{}
	}
	c := n.children[segment]
	if c == nil {
		c = &node{}
		n.children[segment] = c
	}
	return c
}

func (n *node) set(r *route) {
	if r.methods&methodGet != 0 {
		if n.get != nil {
			panic(fmt.Sprintf("route %q is there twice", r.pattern))
		}
		n.get = r
	}
	if r.methods&methodPut != 0 {
		if n.put != nil {
			panic(fmt.Sprintf("route %q is there twice", r.pattern))
		}
		n.put = r
	}
}

func (n *node) sort() {
	n.order = n.order[:0]
	for s, c := range n.children {
		n.order = append(n.order, s)
		c.sort()
	}
	sort.Strings(n.order)
	if n.param != nil {
		n.param.sort()
	}
}

// match finds the node of a raw path, which starts with "/" and has no
// query, and the value of its parameter. One extra slash at the start is
// taken as if it were not there (Java clients write it when the endpoint
// setting ends in a slash). A path with any other empty segment, a dot
// segment or an escaped slash has no node.
func (t *tree) match(path string) (n *node, param string) {
	if len(path) > 1 && path[1] == '/' {
		path = path[1:]
	}
	n = t.root
	for rest := path[1:]; rest != ""; {
		if n.rest != nil {
			return n.rest, rest
		}
		segment, after, slash := strings.Cut(rest, "/")
		rest = after
		if slash && rest == "" && !t.listings {
			return nil, ""
		}
		if c := n.children[segment]; c != nil {
			n = c
			continue
		}
		if n = n.param; n == nil {
			return nil, ""
		}
		var ok bool
		if param, ok = parameter(segment); !ok {
			return nil, ""
		}
	}
	return n, param
}

// parameter unescapes one segment. It refuses what another reader of the
// path could take for something else.
func parameter(segment string) (string, bool) {
	value := segment
	if strings.IndexByte(segment, '%') >= 0 {
		var err error
		if value, err = url.PathUnescape(segment); err != nil {
			return "", false
		}
	}
	if value == "" || value == "." || value == ".." {
		return "", false
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c == '/' || c == '\\' || c < 0x20 || c == 0x7f {
			return "", false
		}
	}
	return value, true
}

// branches reports whether there is something below n: its name ends in "/"
// where it is listed.
func (n *node) branches() bool { return len(n.children) > 0 || n.param != nil || n.rest != nil }

// list returns the names under n as EC2 writes them: one a line, no line
// feed after the last, directories ending in "/" (versions, directly under
// the root, are bare). It is empty when nothing is there.
func (t *tree) list(n *node, f *Facts) string {
	if n == t.root {
		return strings.Join(append(versions(), latest), "\n")
	}
	return strings.Join(n.names(f), "\n")
}

func (n *node) names(f *Facts) []string {
	var names []string
	for _, s := range n.order {
		c := n.children[s]
		if !c.listed(f) {
			continue
		}
		if c.branches() {
			s += "/"
		}
		names = append(names, s)
	}
	if n.rest != nil {
		names = append(names, listLeaves(n.rest.get.below(f), "")...)
	}
	return names
}

// listed reports whether n has a place in the listing of its directory.
func (n *node) listed(f *Facts) bool {
	switch {
	case n.get != nil:
		return !n.get.hidden && (n.get.value == nil || n.get.value(f) != "") && (n.get.listed == nil || n.get.listed(f))
	case n.put != nil:
		return false
	}
	return len(n.names(f)) > 0
}

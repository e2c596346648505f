package settings

import (
	"bytes"
	"strconv"

	"github.com/pelletier/go-toml/v2/unstable"
)

// lines says where each key of a TOML file stands, by its path:
// "log.level", "endpoint[0].user[1].profile", "endpoint[0].hosts[2]". The
// decoder tells places of syntax errors alone, and a value that can't be
// used has one too.
type lines map[string]int

// linesOf reads the places from a file that decodes without an error.
func linesOf(file []byte) lines {
	x := indexer{file: file, at: lines{}, count: map[string]int{}}
	x.parser.Reset(file)
	table := ""
	for x.parser.NextExpression() {
		switch e := x.parser.Expression(); e.Kind {
		case unstable.Table:
			table = x.header(e, false)
		case unstable.ArrayTable:
			table = x.header(e, true)
		case unstable.KeyValue:
			x.keyValue(table, e)
		}
	}
	return x.at
}

type indexer struct {
	parser unstable.Parser
	file   []byte
	at     lines
	count  map[string]int // elements of each array of tables so far
}

// line is that of a node that knows its bytes, 0 for others.
func (x *indexer) line(n *unstable.Node) int {
	if n.Raw.Length == 0 {
		return 0
	}
	return 1 + bytes.Count(x.file[:n.Raw.Offset], []byte{'\n'})
}

func (x *indexer) note(path string, line int) {
	if _, known := x.at[path]; !known && line > 0 {
		x.at[path] = line
	}
}

// header is the path of a table: a part of it that is an array of tables
// means its last element so far.
func (x *indexer) header(e *unstable.Node, array bool) string {
	path := ""
	for it := e.Key(); it.Next(); {
		n := it.Node()
		path = join(path, string(n.Data))
		switch {
		case it.IsLast() && array:
			x.count[path]++
			path = element(path, x.count[path]-1)
			x.note(path, x.line(n))
		case it.IsLast():
			x.note(path, x.line(n))
		case x.count[path] > 0:
			path = element(path, x.count[path]-1)
		}
	}
	return path
}

func (x *indexer) keyValue(table string, e *unstable.Node) {
	path, line := table, 0
	for it := e.Key(); it.Next(); {
		path = join(path, string(it.Node().Data))
		line = x.line(it.Node())
		x.note(path, line)
	}
	x.value(path, line, e.Value())
}

func (x *indexer) value(path string, line int, v *unstable.Node) {
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				x.keyValue(path, it.Node())
			}
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); {
			n := it.Node()
			if n.Kind == unstable.Comment {
				continue
			}
			at := line
			if own := x.line(n); own > 0 {
				at = own
			}
			x.note(element(path, i), at)
			x.value(element(path, i), at, n)
			i++
		}
	}
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

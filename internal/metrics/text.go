package metrics

import (
	"strconv"
	"strings"
)

// writer writes the text exposition format 0.0.4: for each family a line
// HELP, a line TYPE and its samples together, each line ended by a line feed
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
type writer struct{ b []byte }

// helpEscapes are what must not stand in a HELP text as it is; in a label's
// value the double quote is another.
var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func (w *writer) family(name, kind, help string) {
	w.b = append(w.b, "# HELP "...)
	w.b = append(w.b, name...)
	w.b = append(w.b, ' ')
	w.b = append(w.b, helpEscapes.Replace(help)...)
	w.b = append(w.b, "\n# TYPE "...)
	w.b = append(w.b, name...)
	w.b = append(w.b, ' ')
	w.b = append(w.b, kind...)
	w.b = append(w.b, '\n')
}

// sample writes one sample; labels are pairs of name and value.
func (w *writer) sample(name string, v float64, labels ...string) {
	w.name(name, labels)
	w.b = append(strconv.AppendFloat(w.b, v, 'g', -1, 64), '\n')
}

// count writes one sample of a whole number, without the rounding of a float
// on the way.
func (w *writer) count(name string, v uint64, labels ...string) {
	w.name(name, labels)
	w.b = append(strconv.AppendUint(w.b, v, 10), '\n')
}

func (w *writer) name(name string, labels []string) {
	w.b = append(w.b, name...)
	for i := 0; i+1 < len(labels); i += 2 {
		if i == 0 {
			w.b = append(w.b, '{')
		} else {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, labels[i]...)
		w.b = append(w.b, `="`...)
		// The format is UTF-8: what is not would make it all unreadable.
		w.b = append(w.b, labelEscapes.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD"))...)
		w.b = append(w.b, '"')
	}
	if len(labels) > 1 {
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ' ')
}

func (w *writer) gauge(name, help string, v float64) {
	w.family(name, "gauge", help)
	w.sample(name, v)
}

func (w *writer) counter(name, help string, v uint64) {
	w.family(name, "counter", help)
	w.count(name, v)
}

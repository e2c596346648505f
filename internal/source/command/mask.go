package command

import (
	"bytes"
	"strings"
)

// maskErrors makes what a program wrote to standard error fit for a debug
// log: one line, printable, and without whatever may be a secret: words of
// its standard output, codes of six to eight digits, and long words that are
// not plain words in lower case.
func maskErrors(errs, out []byte) string {
	var b strings.Builder
	for i := 0; i < len(errs); {
		if !wordByte(errs[i]) {
			c := errs[i]
			if c < ' ' || c >= 0x7f {
				c = ' '
			}
			b.WriteByte(c)
			i++
			continue
		}
		j := i
		for j < len(errs) && wordByte(errs[j]) {
			j++
		}
		if word := errs[i:j]; maySecret(word, out) {
			b.WriteString("[redacted]")
		} else {
			b.Write(word)
		}
		i = j
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// wordByte: what keys, tokens and codes are made of.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+/=_.~%-", c) >= 0 || c >= 0x80
}

func maySecret(word, out []byte) bool {
	digits := 0
	plain := true // lower case words, with one capital each at most, joined by / . _ -
	capital := true
	for _, c := range word {
		switch {
		case c >= '0' && c <= '9':
			digits++
			plain = false
		case c >= 'A' && c <= 'Z':
			plain = plain && capital
			capital = false
		case c >= 'a' && c <= 'z':
			capital = false
		case strings.IndexByte("/._-", c) >= 0:
			capital = true
		default:
			plain = false
		}
	}
	switch {
	case digits >= 6 && digits == len(word):
		return true
	case len(word) >= 12 && !plain:
		return true
	}
	return len(word) >= 8 && bytes.Contains(out, word)
}

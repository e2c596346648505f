package control

import (
	"strconv"
	"strings"
)

// Older reports whether the version a is older than b, by the numbers of
// semantic versioning; a version with a suffix ("-rc1") comes before the one
// without. Versions that are not of that form ("dev") are never older.
func Older(a, b string) bool {
	if a == b {
		return false
	}
	an, as, aok := splitVersion(a)
	bn, bs, bok := splitVersion(b)
	if !aok || !bok {
		return false
	}
	for i := range an {
		if an[i] != bn[i] {
			return an[i] < bn[i]
		}
	}
	switch {
	case as == bs || as == "":
		return false
	case bs == "":
		return true
	}
	return as < bs
}

func splitVersion(v string) (numbers [3]int, suffix string, ok bool) {
	v = strings.TrimPrefix(v, "v")
	v, _, _ = strings.Cut(v, "+")
	v, suffix, _ = strings.Cut(v, "-")
	parts := strings.Split(v, ".")
	if len(parts) != len(numbers) {
		return numbers, "", false
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 {
			return numbers, "", false
		}
		numbers[i] = n
	}
	return numbers, suffix, true
}

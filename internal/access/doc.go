// Package access decides who may have what: the rules by user and program,
// the tokens of the metadata endpoint, and the grants that open the
// container endpoint. Without a rule that says yes the answer is no.
package access

// Package access decides who may have what: the rules by user, group and
// program, the tokens of the metadata endpoint, the grants that open the
// container endpoint, and the answers of people who were asked about a
// protected profile. Without a rule that says yes the answer is no.
package access

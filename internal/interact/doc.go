// Package interact brings questions to people: one interaction for each
// link that needs somebody, however many profiles and callers wait for it,
// put to whoever is there, shown by status until it is answered.
package interact

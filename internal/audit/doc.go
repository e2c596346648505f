// Package audit keeps the record of every hand-out and refusal.
package audit

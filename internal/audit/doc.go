// Package audit keeps the record of every hand-out and refusal: one JSON
// object a line (CONTRACT.md §8), in a file that rotates by size.
//
// # The way of an event
//
// Record counts the event in a small table in memory and returns. What is not
// in the table yet wakes the writer, the one goroutine of Run, which finds out
// the program, and writes the first line of a caller at once: a hand-out is
// never in memory alone. What repeats is counted into one line a minute. The
// table is bounded: where one user's events differ from one another faster
// than that, they are told apart less and less (see book), so that neither
// memory nor the file grows as fast as somebody can make up names. What could
// not even be counted becomes an entry "lost" with how many.
//
// # The chain
//
// The field previous of each line is the HMAC-SHA256, in hex, of the line
// before it without its line feed, across rotation and restarts, keyed by a
// key that lies in the vault; that of the first line ever is the HMAC of
// nothing. Who does not have the key can't change, insert, remove or reorder
// lines without a break that Verify finds. While the vault is locked the
// chain goes on with plain SHA-256 ("sha256:" before the hex): such entries
// are as good as the file until the vault is opened, when the next line's
// HMAC seals them, and Verify tells of them.
//
// A chain alone does not show that its end was cut off. So the hash of the
// last line is a record of the vault, HeadRecord, written within five seconds
// of a line, on rotation and at the end; the running daemon also has it in
// memory. What was cut off is found unless the daemon was killed within those
// seconds, or an older copy of the vault's record was put back with the older
// file while no daemon ran. Where the file does not continue what the record
// says, the next line continues the record and not the file, so that the
// break stays to be seen.
//
// Files removed from the old end by rotation itself are accounted for: the
// file that is closed then ends in an entry "rotation", whose field oldest is
// what the first line that is kept has in previous.
//
// # What a crash costs
//
// A line is one write(2) to a file opened with O_APPEND. The file is synced
// before each HeadRecord: a killed daemon loses the counts of repetitions of
// at most a minute, a power cut the lines of at most five seconds too. A line
// that was cut short is removed by the next start, and told as lost.
package audit

//go:build race

package broker

const raceEnabled = true

// many is how many profiles are many: the race detector breaks off (a limit of
// its own) when one goroutine takes too many locks.
const many = 150

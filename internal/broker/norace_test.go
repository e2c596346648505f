//go:build !race

package broker

const raceEnabled = false

const many = 1000

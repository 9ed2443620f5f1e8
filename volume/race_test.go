//go:build race

package volume_test

// The race detector makes everything some ten times slower: with it, tests that enumerate take every stride-th case, and
// random ones run less. Without it they are complete.
const (
	stride      = 23
	defaultRuns = 4
)

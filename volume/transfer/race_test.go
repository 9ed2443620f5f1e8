//go:build race

package transfer_test

// The race detector makes everything some ten times slower: with it, tests that enumerate take every stride-th case.
const stride = 29

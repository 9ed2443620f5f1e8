package transfer_test

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var seed = flag.Uint64("transfer.seed", 0, "seed of the random tests; 0 takes a new one")

// random returns a source for a random test and makes its failure name the seed.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	n := *seed
	if n == 0 {
		n = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -transfer.seed=%d", n)
		}
	})
	return rand.New(rand.NewPCG(n, 0))
}

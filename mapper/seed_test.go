package mapper

import (
	"flag"
	"math/rand/v2"
	"testing"

	"skerry/chunk"
)

var seed = flag.Uint64("mapper.seed", 0, "seed of the random tests; 0 takes a new one")

// random returns a source for a random test and makes its failure name the seed.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	n := *seed
	if n == 0 {
		n = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -mapper.seed=%d", n)
		}
	})
	return rand.New(rand.NewPCG(n, 0))
}

func geometry(t testing.TB, size int64) chunk.Geometry {
	t.Helper()
	g, err := chunk.NewGeometry(size)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// someID returns an id that depends on rng alone.
func someID(rng *rand.Rand) (id chunk.VolumeID) {
	for i := range id {
		id[i] = byte(rng.Uint32())
	}
	return id
}

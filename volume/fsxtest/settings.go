package fsxtest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Settings returns the seed and the number of operations of a test: SKERRY_SEED or a new one; SKERRY_FSX_OPS, or soak if SKERRY_SOAK is set, or usual.
// The test logs the seed.
func Settings(t testing.TB, usual, soak int) (seed uint64, ops int) {
	t.Helper()
	seed, ops = rand.Uint64(), usual
	if os.Getenv("SKERRY_SOAK") != "" {
		ops = soak
	}
	if s := os.Getenv("SKERRY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("SKERRY_FSX_OPS"); s != "" {
		var err error
		if ops, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SKERRY_SEED=%d", seed)
	return seed, ops
}

package load

import (
	"flag"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var seed = flag.Uint64("load.seed", 0, "seed of the random tests; 0 takes a new one")

// random returns a source for a random test and makes its failure name the seed.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	n := *seed
	if n == 0 {
		n = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -load.seed=%d", n)
		}
	})
	return rand.New(rand.NewPCG(n, 0))
}

func TestBucketsFollowEachOther(t *testing.T) {
	for b := range histogram - 1 {
		last := ceiling(b)
		if bucket(last) != b || bucket(last+1) != b+1 {
			t.Fatalf("bucket %d ends at %d, but %d is in %d and its successor in %d", b, last, last, bucket(last), bucket(last+1))
		}
	}
	if b := bucket(time.Duration(math.MaxInt64)); b != histogram-1 {
		t.Errorf("the longest duration is in bucket %d", b)
	}
	if b := bucket(-1); b != 0 {
		t.Errorf("a clock that went back is in bucket %d", b)
	}
}

func TestQuantilesAreThoseOfTheSamples(t *testing.T) {
	rng := random(t)
	for range 50 {
		n := 1 + rng.IntN(5000)
		all := make([]time.Duration, n)
		var whole, part Histogram
		var sum time.Duration
		for i := range all {
			all[i] = time.Duration(math.Exp(rng.Float64() * 25)) // up to 72 s, as many short as long
			sum += all[i]
			if i%2 == 0 {
				whole.Record(all[i])
			} else {
				part.Record(all[i])
			}
		}
		whole.Add(&part)
		slices.Sort(all)
		for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 0.999, 1} {
			exact := all[min(max(int(math.Ceil(q*float64(n)))-1, 0), n-1)]
			got := whole.Quantile(q)
			if got < exact || float64(got) > float64(exact)*(1+1./64)+1 {
				t.Errorf("quantile %v of %d samples: got %d, want %d", q, n, got, exact)
			}
		}
		if whole.Count() != int64(n) || whole.Max() != all[n-1] || whole.Mean() != sum/time.Duration(n) {
			t.Errorf("count %d, max %d, mean %d; want %d, %d, %d", whole.Count(), whole.Max(), whole.Mean(), n, all[n-1], sum/time.Duration(n))
		}
	}
}

func TestEmptyHistogram(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 || h.Mean() != 0 || h.Count() != 0 {
		t.Error("an empty histogram tells of something")
	}
}

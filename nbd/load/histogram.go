package load

import (
	"math/bits"
	"time"
)

// Durations below 1<<subBits ns have a bucket each; above, every power of two has 1<<subBits buckets, so that a
// bucket is at most 1/64 of its value wide.
const (
	subBits   = 6
	maxBits   = 40 // 18 minutes; what is longer counts in the last bucket
	histogram = (maxBits - subBits + 1) << subBits
)

// Histogram counts durations in buckets whose width grows with the value. Its zero value is empty. It is not safe for
// concurrent use.
type Histogram struct {
	counts [histogram]uint64
	n      uint64
	sum    time.Duration
	max    time.Duration
}

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<subBits {
		return int(v)
	}
	exp := bits.Len64(v) - 1 - subBits // how far v is shifted to leave subBits+1 bits
	return min(exp<<subBits+int(v>>exp), histogram-1)
}

// ceiling returns the largest duration of a bucket.
func ceiling(b int) time.Duration {
	if b < 1<<subBits {
		return time.Duration(b)
	}
	exp := b>>subBits - 1
	return time.Duration((uint64(b)-uint64(exp)<<subBits+1)<<exp - 1)
}

// Record counts a duration.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucket(d)]++
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

// Add counts all that other has counted.
func (h *Histogram) Add(other *Histogram) {
	for i, c := range other.counts {
		h.counts[i] += c
	}
	h.n += other.n
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Count returns how many durations there are.
func (h *Histogram) Count() int64 { return int64(h.n) }

// Max returns the longest duration, exactly; 0 if there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the mean duration, exactly; 0 if there is none.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// Quantile returns a duration that is at least as long as a share q, from 0 to 1, of all, and at most 1/64 longer than the
// shortest that is; 0 if there is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) || rank == 0 {
		rank++
	}
	rank = min(rank, h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank && c > 0 {
			return min(ceiling(i), h.max)
		}
	}
	return 0
}

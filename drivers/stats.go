package drivers

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// LatencyBuckets is the number of buckets of a latency histogram, see [LatencyBound].
const LatencyBuckets = 28

// LatencyBound returns the time below which the operations counted in bucket i took: 1 µs
// times 2 to the power of i. The last bucket has no bound.
func LatencyBound(i int) time.Duration { return time.Microsecond << i }

// Stats are an engine's counters.
type Stats struct {
	Lanes   [LaneCount]LaneStats
	Handles int // open objects
	Dirty   int // open objects with unsynced changes
}

// LaneStats are the counters of one lane.
type LaneStats struct {
	Queued  int                    // waiting now
	Running int                    // handed to workers now
	Inline  uint64                 // done on the submitter's goroutine
	Done    uint64                 // queued and ended
	Errors  uint64                 // of both, those that ended with an error
	Latency [LatencyBuckets]uint64 // of Done, from Submit to the end
	Total   time.Duration          // the sum of these latencies
}

type laneCounts struct {
	inline, done, errors atomic.Uint64
	total                atomic.Int64
	latency              [LatencyBuckets]atomic.Uint64
}

func (c *laneCounts) add(took time.Duration, err error) {
	c.done.Add(1)
	if err != nil {
		c.errors.Add(1)
	}
	c.total.Add(int64(took))
	c.latency[min(bits.Len64(uint64(took/time.Microsecond)), LatencyBuckets-1)].Add(1)
}

// Stats returns the counters. They are read one after the other while work goes on.
func (e *Engine) Stats() Stats {
	var s Stats
	for i := range s.Lanes {
		c, o := &e.counts[i], &s.Lanes[i]
		o.Inline, o.Done, o.Errors, o.Total = c.inline.Load(), c.done.Load(), c.errors.Load(), time.Duration(c.total.Load())
		for b := range o.Latency {
			o.Latency[b] = c.latency[b].Load()
		}
	}
	for i, l := range e.lanes {
		o := &s.Lanes[LaneGuest]
		if i < LaneCount {
			o = &s.Lanes[i]
		}
		l.mu.Lock()
		o.Queued += l.queued
		o.Running += l.running
		l.mu.Unlock()
	}
	s.Handles = int(e.handles.slots.Load())
	e.dirty.mu.Lock()
	s.Dirty = e.dirty.n
	e.dirty.mu.Unlock()
	return s
}

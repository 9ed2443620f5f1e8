package load

import (
	"time"
)

// Result says what came of a load. Flushes count nowhere but in Kinds and Ended.
type Result struct {
	Seconds  float64 `json:"seconds"`  // that were counted
	Requests int64   `json:"requests"` // that ended in them
	Bytes    int64   `json:"bytes"`
	IOPS     float64 `json:"iops"`
	Rate     float64 `json:"bytes_per_second"`
	Latency  Latency `json:"latency"`
	Kinds    []Kind  `json:"kinds"`

	Ended    int64   `json:"ended"`    // requests of all kinds and of the warm-up
	CPU      float64 `json:"cpu_us"`   // processor time of this process for each of them, microseconds
	Verified int64   `json:"verified"` // reads that returned what this run wrote there last
	Earlier  int64   `json:"earlier"`  // reads that returned what an earlier run wrote there, whole
	Foreign  int64   `json:"foreign"`  // reads, with Verify, of what could not be checked
}

// Kind is the part of one kind of requests in a [Result].
type Kind struct {
	Kind     string  `json:"kind"` // read, write, zero, trim or flush
	Requests int64   `json:"requests"`
	Latency  Latency `json:"latency"`
}

// Latency tells how long requests took, in microseconds. Percentiles are at most 1/64 too long.
type Latency struct {
	Mean float64 `json:"mean_us"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	Max  float64 `json:"max_us"`
}

func latency(h *Histogram) Latency {
	us := func(d time.Duration) float64 { return float64(d) / 1e3 }
	return Latency{Mean: us(h.Mean()), P50: us(h.Quantile(.5)), P99: us(h.Quantile(.99)), P999: us(h.Quantile(.999)), Max: us(h.Max())}
}

// summarize adds up what sessions counted; cpu is the processor time that all of it took.
func summarize(c *Config, sessions []*session, cpu time.Duration) Result {
	var r Result
	var all Histogram
	var sums [allKinds]Histogram
	var last time.Duration
	for _, s := range sessions {
		for i := range sums {
			sums[i].Add(&s.counted[i])
		}
		last = max(last, s.last)
		r.Ended += s.ended
		r.Verified += s.found[right]
		r.Earlier += s.found[earlier]
		r.Foreign += s.found[foreign]
	}
	for i := range sums {
		if sums[i].Count() == 0 {
			continue
		}
		r.Kinds = append(r.Kinds, Kind{Kind: name(i), Requests: sums[i].Count(), Latency: latency(&sums[i])})
		if i != flush {
			all.Add(&sums[i])
		}
	}
	span := max(last-c.Warmup, 0)
	if c.Time > 0 && c.Count == 0 && c.Pattern != Shuffle {
		span = c.Time // nothing else ends it
	}
	r.Seconds, r.Requests, r.Bytes, r.Latency = span.Seconds(), all.Count(), all.Count()*c.Block, latency(&all)
	if span > 0 {
		r.IOPS, r.Rate = float64(r.Requests)/r.Seconds, float64(r.Bytes)/r.Seconds
	}
	if r.Ended > 0 {
		r.CPU = float64(cpu) / 1e3 / float64(r.Ended)
	}
	return r
}

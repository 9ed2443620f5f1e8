package local

import (
	"sync/atomic"
	"time"
)

const (
	// slowWrite is how long an inline write may take, besides a nanosecond for each byte.
	slowWrite = 2 * time.Millisecond
	// stuckWrite is what a worker's write takes only where the storage holds writers up. Workers wait for
	// processors, too, when there are many, so that slowWrite says nothing about theirs.
	stuckWrite = 50 * time.Millisecond
	// slowPause is the longest time without inline writes after a slow one.
	slowPause = 100 * time.Millisecond
)

// pace decides whether writes are done inline. After a slow one none is for as long as that took, then twice as long each time that
// the next one is slow, too: a writer that had to wait for a processor looks like one that the storage has
// held up, but not again and again.
type pace struct {
	until atomic.Int64 // no inline writes before this time, in nanoseconds
	pause atomic.Int64 // the pause after the last inline write; 0: it was quick
}

// inline reports whether a write may be done inline now.
func (p *pace) inline(now time.Duration) bool { return int64(now) >= p.until.Load() }

// wrote takes in how long a write of n bytes took.
func (p *pace) wrote(n int, began, ended time.Duration, inline bool) {
	took := ended - began - time.Duration(n)
	switch {
	case inline && took > slowWrite:
		p.hold(ended, min(max(took, 2*time.Duration(p.pause.Load())), slowPause))
	case inline && p.pause.Load() != 0:
		p.pause.Store(0)
	case !inline && took > stuckWrite:
		p.hold(ended, slowPause)
	}
}

func (p *pace) hold(now, pause time.Duration) {
	p.pause.Store(int64(pause))
	p.until.Store(int64(now + pause))
}

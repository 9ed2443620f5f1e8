package load

import (
	"fmt"
	"time"

	"skerry/nbd/client"
)

// Pattern is the order in which a range is gone through.
type Pattern int

// The patterns.
const (
	Random     Pattern = iota // any block, each time anew
	Sequential                // one after the other, each connection in a part of its own, and again from its beginning
	Shuffle                   // every block once, in random order; then the load ends
)

// ParsePattern reads random, sequential or shuffle.
func ParsePattern(s string) (Pattern, error) {
	for p := Random; p <= Shuffle; p++ {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("pattern %q: want random, sequential or shuffle", s)
}

// String returns the pattern's name.
func (p Pattern) String() string { return [...]string{"random", "sequential", "shuffle"}[p] }

// Bounds of a Config.
const (
	MaxDepth       = 1024     // requests in flight on one connection
	MaxConnections = 256      //
	MaxMemory      = 4 << 30  // bytes of all buffers
	MaxSlots       = 64 << 20 // blocks of a range that is verified; each takes 4 bytes of memory
)

// Config says what to do. Offset and Size are multiples of Block.
type Config struct {
	Mix        Mix
	Pattern    Pattern
	Block      int64 // bytes of a request
	Offset     int64 // where the range begins, bytes
	Size       int64 // of the range, bytes; 0: to the end of the export, as many blocks as fit
	Depth      int   // requests in flight on each connection
	Conns      int   // connections
	FlushEvery int64 // a flush after that many changes of a connection; 0: none
	FUA        bool  // changes are durable before they are answered
	Verify     bool  // write blocks that describe themselves, and check what is read
	Fill       bool  // first write the whole range once, sequentially, which does not count
	Seed       uint64

	// The load ends when Time has passed or Count requests have ended, flushes not counted; 0 is no bound.
	Time  time.Duration
	Count int64
	// Warmup passes before anything is counted, and before Time begins.
	Warmup time.Duration
}

// Changes reports whether the load changes data of the export.
func (c Config) Changes() bool { return c.Mix.Changes() || c.Fill }

// fit checks the configuration for something of size bytes and fills in what was left open.
func (c Config) fit(size int64) (Config, error) {
	sum := 0
	for _, n := range c.Mix.shares() {
		if n < 0 {
			return c, fmt.Errorf("mix has a negative share")
		}
		sum += n
	}
	switch {
	case sum != 100:
		return c, fmt.Errorf("the shares of the mix add up to %d, not 100", sum)
	case c.Block <= 0 || c.Block > 32<<20:
		return c, fmt.Errorf("blocks of %d bytes: want 1 to 32 MiB", c.Block)
	case c.Verify && c.Block%sector != 0:
		return c, fmt.Errorf("blocks of %d bytes: only multiples of %d can be verified", c.Block, sector)
	case c.Offset < 0 || c.Offset%c.Block != 0 || c.Size < 0 || c.Size%c.Block != 0:
		return c, fmt.Errorf("the range of %d bytes at %d is not made of blocks of %d bytes", c.Size, c.Offset, c.Block)
	case c.Offset >= size || c.Size > size-c.Offset:
		return c, fmt.Errorf("the range of %d bytes at %d does not fit %d bytes", c.Size, c.Offset, size)
	case c.Depth < 1 || c.Depth > MaxDepth:
		return c, fmt.Errorf("depth %d: want 1 to %d", c.Depth, MaxDepth)
	case c.Conns < 1 || c.Conns > MaxConnections:
		return c, fmt.Errorf("%d connections: want 1 to %d", c.Conns, MaxConnections)
	case int64(c.Depth)*int64(c.Conns)*c.Block > MaxMemory:
		return c, fmt.Errorf("%d connections with %d blocks of %d bytes need more than %d bytes of memory", c.Conns, c.Depth, c.Block, int64(MaxMemory))
	case c.FlushEvery < 0 || c.Count < 0 || c.Time < 0 || c.Warmup < 0:
		return c, fmt.Errorf("a negative number of flushes, requests or seconds")
	case c.Time == 0 && c.Count == 0 && c.Pattern != Shuffle:
		return c, fmt.Errorf("neither a time nor a number of requests says when to end")
	}
	if c.Size == 0 {
		c.Size = (size - c.Offset) / c.Block * c.Block
	}
	// Slots that are free must be easy to find beside those in use.
	if n := c.slots(); n < int64(c.Conns) || c.Verify && n < 2*int64(c.Depth)*int64(c.Conns) {
		return c, fmt.Errorf("a range of %d blocks is too small for %d requests in flight", n, c.Depth*c.Conns)
	}
	if c.Verify && c.slots() > MaxSlots {
		return c, fmt.Errorf("a range of %d blocks is too large to verify, want at most %d", c.slots(), MaxSlots)
	}
	return c, nil
}

func (c Config) slots() int64 { return c.Size / c.Block }

// kind returns the command of an index of kinds.
func kind(i int) client.Kind {
	if i == flush {
		return client.Flush
	}
	return kinds[i].kind
}

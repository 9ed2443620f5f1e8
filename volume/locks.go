package volume

import "sync"

const lockShards = 32

// locks are the block ranges of chunks that are being changed. A range is granted when no
// earlier range of the same chunk, held or waiting, overlaps it, so that nobody starves.
type locks struct {
	shards [lockShards]lockShard
}

type lockShard struct {
	mu     sync.Mutex
	chunks map[uint64]*chunkLock
	free   []*chunkLock
}

type chunkLock struct {
	changed sync.Cond
	waiting int
	ranges  []blockRange // in order of arrival
}

type blockRange struct {
	first, end int
	ticket     uint64
}

// held is a range that lock or try granted. The zero value is none.
type held struct {
	index      uint64
	first, end int
	ticket     uint64
}

func newLocks() *locks {
	l := &locks{}
	for i := range l.shards {
		l.shards[i].chunks = make(map[uint64]*chunkLock)
	}
	return l
}

func (l *locks) shard(index uint64) *lockShard { return &l.shards[index%lockShards] }

// try locks the blocks [first, end) of a chunk if nobody has or awaits any of them.
func (l *locks) try(index uint64, first, end int) (held, bool) {
	s := l.shard(index)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.get(index)
	if c.conflict(first, end, len(c.ranges)) {
		return held{}, false
	}
	return c.add(index, first, end), true
}

// lock locks the blocks [first, end) of a chunk, waiting for those who came before.
func (l *locks) lock(index uint64, first, end int) held {
	s := l.shard(index)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.get(index)
	h := c.add(index, first, end)
	for c.conflict(first, end, c.position(h.ticket)) {
		c.waiting++
		c.changed.Wait()
		c.waiting--
	}
	return h
}

// unlock ends a range.
func (l *locks) unlock(h held) {
	s := l.shard(h.index)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chunks[h.index]
	i := c.position(h.ticket)
	c.ranges = append(c.ranges[:i], c.ranges[i+1:]...)
	if c.waiting > 0 {
		c.changed.Broadcast()
	}
	if len(c.ranges) == 0 {
		delete(s.chunks, h.index)
		s.free = append(s.free, c)
	}
}

func (s *lockShard) get(index uint64) *chunkLock {
	if c := s.chunks[index]; c != nil {
		return c
	}
	var c *chunkLock
	if n := len(s.free); n > 0 {
		c, s.free = s.free[n-1], s.free[:n-1]
	} else {
		c = &chunkLock{changed: sync.Cond{L: &s.mu}}
	}
	s.chunks[index] = c
	return c
}

func (c *chunkLock) add(index uint64, first, end int) held {
	var ticket uint64
	if n := len(c.ranges); n > 0 {
		ticket = c.ranges[n-1].ticket + 1
	}
	c.ranges = append(c.ranges, blockRange{first, end, ticket})
	return held{index, first, end, ticket}
}

// conflict reports whether one of the n oldest ranges overlaps [first, end).
func (c *chunkLock) conflict(first, end, n int) bool {
	for _, r := range c.ranges[:n] {
		if r.first < end && first < r.end {
			return true
		}
	}
	return false
}

func (c *chunkLock) position(ticket uint64) int {
	for i, r := range c.ranges {
		if r.ticket == ticket {
			return i
		}
	}
	panic("volume: a lock that is not held")
}

package nbd

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// headroom is kept before each pooled buffer's data: a reply's head lies there, so that it is sent
// together with the data as one run of memory, and the data stays page-aligned.
const headroom = 4 << 10

const (
	minClassShift = 12 // 4 KiB
	classes       = 25 - minClassShift + 1
	keep          = 64 << 20 // bytes of all classes that are kept for later: 64 requests of 1 MiB
)

// buffer is a pooled buffer.
type buffer struct {
	mem   []byte // headroom, then data
	class int8
	local bool // counts for its connection's reserve, not for Options.MaxInFlight
}

// data returns the first n bytes.
func (b *buffer) data(n int) []byte { return b.mem[headroom : headroom+n : headroom+n] }

// charge returns the bytes that the buffer counts for.
func (b *buffer) charge() int64 { return int64(len(b.mem)) }

// pool keeps buffers in classes, the powers of two from 4 KiB to 32 MiB, last in first out.
type pool struct {
	kept  atomic.Int64 // bytes of all buffers in it
	class [classes]struct {
		sync.Mutex
		free []*buffer
	}
}

// classOf returns the class for n bytes, at most MaxPayload.
func classOf(n int) int {
	if n <= 1<<minClassShift {
		return 0
	}
	return bits.Len(uint(n-1)) - minClassShift
}

// classCharge returns what a buffer for n bytes counts for.
func classCharge(n int) int64 { return headroom + 1<<(minClassShift+classOf(n)) }

func (p *pool) get(n int) *buffer {
	i := classOf(n)
	c := &p.class[i]
	c.Lock()
	if last := len(c.free) - 1; last >= 0 {
		b := c.free[last]
		c.free[last] = nil
		c.free = c.free[:last]
		c.Unlock()
		p.kept.Add(-b.charge())
		return b
	}
	c.Unlock()
	return &buffer{mem: make([]byte, classCharge(n)), class: int8(i)}
}

// put keeps a buffer for later. If the pool is full of buffers of other classes it forgets them: the load has
// changed. What it does not keep is garbage, which nobody wants to make when memory is short.
func (p *pool) put(b *buffer) {
	c := &p.class[b.class]
	if p.kept.Add(b.charge()) > keep {
		c.Lock()
		none := len(c.free) == 0
		c.Unlock()
		if !none {
			p.kept.Add(-b.charge())
			return
		}
		p.drop()
	}
	c.Lock()
	c.free = append(c.free, b)
	c.Unlock()
}

// drop forgets all kept buffers.
func (p *pool) drop() {
	for i := range p.class {
		c := &p.class[i]
		c.Lock()
		free := c.free
		c.free = nil
		c.Unlock()
		for _, b := range free {
			p.kept.Add(-b.charge())
		}
	}
}

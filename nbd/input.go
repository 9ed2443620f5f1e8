package nbd

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// inbuf is an input buffer. It is pinned by the connection that reads into it, and by each
// payload in it that a device keeps.
type inbuf struct {
	data []byte
	pins atomic.Int32
	home *inputPool
	// detached counts, for its connection, the buffers that only payloads pin.
	detached *atomic.Int32
}

func (b *inbuf) unpin() {
	if b.pins.Add(-1) == 0 {
		b.detached.Add(-1)
		b.home.put(b)
	}
}

// inputPool keeps input buffers of all connections.
type inputPool struct {
	mu   sync.Mutex
	free []*inbuf
}

func (p *inputPool) get(detached *atomic.Int32) *inbuf {
	p.mu.Lock()
	var b *inbuf
	if last := len(p.free) - 1; last >= 0 {
		b = p.free[last]
		p.free = p.free[:last]
	}
	p.mu.Unlock()
	if b == nil {
		b = &inbuf{data: make([]byte, inputSize), home: p}
	}
	b.detached = detached
	b.pins.Store(1)
	return b
}

func (p *inputPool) put(b *inbuf) {
	p.mu.Lock()
	if len(p.free) < 64 {
		p.free = append(p.free, b)
	}
	p.mu.Unlock()
}

func (p *inputPool) drop() {
	p.mu.Lock()
	p.free = nil
	p.mu.Unlock()
}

// input reads a connection through input buffers.
type input struct {
	conn     net.Conn
	pool     *inputPool
	buf      *inbuf
	r, w     int          // buf.data[r:w] was read and not yet used
	limit    int          // of the next read's length; 0 is none
	idle     func()       // called before a read that may block
	asked    [2]time.Time // when the last two reads began, the last one first
	detached atomic.Int32
}

func (in *input) open(conn net.Conn, pool *inputPool, idle func()) {
	in.conn, in.pool, in.idle = conn, pool, idle
	in.buf = pool.get(&in.detached)
}

// close gives up the buffer.
func (in *input) close() { in.detach() }

// detach leaves the buffer to the payloads that pin it.
func (in *input) detach() {
	in.detached.Add(1)
	in.buf.unpin()
}

// next returns the next n bytes, at most inputSize, and uses them up. They stay valid until the next call,
// or as long as the buffer is pinned.
func (in *input) next(n int) ([]byte, error) {
	if in.w-in.r < n {
		if err := in.fill(n); err != nil {
			return nil, err
		}
	}
	b := in.buf.data[in.r : in.r+n : in.r+n]
	in.r += n
	return b, nil
}

// fill reads until n bytes are there.
func (in *input) fill(n int) error {
	if in.r+n > len(in.buf.data) || in.r == in.w {
		in.rewind(n)
	}
	for in.w-in.r < n {
		in.ask()
		end := len(in.buf.data)
		if in.limit > 0 {
			end = min(end, in.w+in.limit)
		}
		m, err := in.conn.Read(in.buf.data[in.w:end])
		in.w += m
		if err != nil && in.w-in.r < n {
			return err
		}
	}
	return nil
}

// ask says that a read begins.
func (in *input) ask() {
	in.idle()
	in.asked[1], in.asked[0] = in.asked[0], time.Now()
}

// oldest returns a time before which nothing was sent of what the last read returned: the read before would have had it.
func (in *input) oldest() time.Time { return in.asked[1] }

// rewind makes room for n bytes in one run.
func (in *input) rewind(n int) {
	rest := in.buf.data[in.r:in.w]
	if in.buf.pins.Load() > 1 {
		if in.r+n <= len(in.buf.data) && len(in.buf.data)-in.w >= inputSize/4 {
			return
		}
		fresh := in.pool.get(&in.detached)
		in.w = copy(fresh.data, rest)
		in.r = 0
		in.detach()
		in.buf = fresh
		return
	}
	in.w = copy(in.buf.data, rest)
	in.r = 0
}

// readFull fills p, past the buffer but for what it already holds.
func (in *input) readFull(p []byte) error {
	n := copy(p, in.buf.data[in.r:in.w])
	in.r += n
	for n < len(p) {
		in.ask()
		m, err := in.conn.Read(p[n:])
		n += m
		if err != nil && n < len(p) {
			return err
		}
	}
	return nil
}

// discard reads and drops n bytes.
func (in *input) discard(n int64) error {
	for n > 0 {
		if in.r == in.w {
			if err := in.fill(1); err != nil {
				return err
			}
		}
		m := int(min(n, int64(in.w-in.r)))
		in.r += m
		n -= int64(m)
	}
	return nil
}

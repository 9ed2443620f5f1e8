package nbd

import (
	"context"
	"log/slog"
	"time"

	"skerry/nbd/internal/proto"
	"skerry/volume"
)

// request is one request of a client, from its header to the end of its reply. It
// returns to the connection's free list when the reply was sent and the device has released it.
type request struct {
	volume.Request
	conn    *conn
	cookie  uint64
	command uint16 // NBD_CMD_*
	df      bool   // the reply must not be fragmented
	errno   uint32
	message string  // of the error
	buf     *buffer // the data of a read or write, or the extents; may be nil
	length  int     // of the extents in buf
	pin     *inbuf  // where a write's payload lies, if not in buf

	sent, released bool // guarded by conn.mu once others may know of the request

	next  *request
	holes [maxHoles]volume.Extent
}

// take returns a free request. It waits until there is one.
func (c *conn) take(h *proto.Request) *request {
	c.mu.Lock()
	for c.free == nil && c.made >= c.srv.opts.MaxRequests {
		c.waitLocked()
	}
	q := c.free
	if q != nil {
		c.free = q.next
	} else {
		c.made++
		q = &request{conn: c}
		q.Done = q
	}
	c.out++
	c.mu.Unlock()
	q.cookie, q.command = h.Cookie, h.Type
	q.Offset, q.Length = int64(h.Offset), int64(h.Length)
	return q
}

// room waits until there is a free request. It fails if the client has gone meanwhile.
func (c *conn) room() error {
	waited := false
	c.mu.Lock()
	for c.free == nil && c.made >= c.srv.opts.MaxRequests {
		c.waitLocked()
		waited = true
	}
	c.mu.Unlock()
	if !waited {
		return nil
	}
	return c.present()
}

// waitLocked waits until a request was recycled. Replies that wait are sent first: nothing
// would be recycled otherwise.
func (c *conn) waitLocked() {
	if len(c.batch) > 0 {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
		return
	}
	c.stalled = true
	c.change.Wait()
	c.stalled = false
}

// recycleLocked takes back a request that was sent and released.
func (c *conn) recycleLocked(q *request) {
	if q.buf != nil {
		n := q.buf.charge()
		c.bytes -= n
		if q.buf.local {
			c.local -= n
		} else {
			c.srv.budget.Release(n)
		}
		c.srv.pool.put(q.buf)
		q.buf = nil
	}
	if q.pin != nil {
		q.pin.unpin()
		q.pin = nil
	}
	q.Data, q.Holes, q.Err, q.Flags = nil, nil, nil, 0
	q.errno, q.message, q.df, q.length = 0, "", false, 0
	q.sent, q.released = false, false
	q.next, c.free = c.free, q
	c.out--
}

// onSent is called by the outbox.
func (c *conn) onSent(sent []*request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range sent {
		if q.sent = true; q.released {
			c.recycleLocked(q)
		}
	}
	c.stopLocked()
	c.change.Signal()
}

// Answered implements [volume.Completer].
func (q *request) Answered(_ *volume.Request, err error) {
	if err != nil {
		q.fail(err)
	}
	q.conn.box.Put(q, false)
}

// Released implements [volume.Completer].
func (q *request) Released(*volume.Request) {
	c := q.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.released = true; q.sent {
		c.recycleLocked(q)
		c.stopLocked()
		c.change.Signal()
	}
}

// submit hands a request to the device.
func (c *conn) submit(q *request) {
	if c.dev.Submit(&q.Request) {
		c.ended(q)
	}
}

// ended puts the reply to a request that ended inline into the batch.
func (c *conn) ended(q *request) {
	q.released = true
	if q.Err != nil {
		q.fail(q.Err)
	}
	if q.command == proto.CmdRead {
		c.batched += len(q.Data)
	}
	c.batch = append(c.batch, q)
}

// refuse answers a request with an error of the protocol.
func (c *conn) refuse(h *proto.Request, errno uint32, message string) {
	q := c.take(h)
	q.errno, q.message, q.released = errno, message, true
	c.batch = append(c.batch, q)
}

// fail turns an error of the device into the request's reply.
func (q *request) fail(err error) {
	c := q.conn
	q.errno = c.srv.errno(q.Kind, err)
	q.message = err.Error()
	level := slog.LevelDebug
	if q.errno == EIO && c.warnNow() {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "request failed",
		"kind", q.Kind, "offset", q.Offset, "length", q.Length, "err", err)
}

// warnNow reports whether a failure may be logged for all to see: an outage fails many requests.
func (c *conn) warnNow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.warned) < warnInterval {
		return false
	}
	c.warned = time.Now()
	return true
}

// takeBuffer returns a buffer for n bytes. It waits while the connection or the server has
// reached its bound of bytes.
func (c *conn) takeBuffer(ctx context.Context, n int) (*buffer, error) {
	charge := classCharge(n)
	limit := max(c.srv.opts.MaxInFlight/8, classCharge(MaxPayload))
	waited := false
	c.mu.Lock()
	for c.bytes > 0 && c.bytes+charge > limit {
		c.waitLocked()
		waited = true
	}
	c.bytes += charge
	local := c.local+charge <= reserve
	if local {
		c.local += charge
	}
	c.mu.Unlock()
	if !local && !c.srv.budget.TryAcquire(charge) {
		c.flush()
		waited = true
		if err := c.srv.budget.Acquire(ctx, charge); err != nil {
			c.mu.Lock()
			c.bytes -= charge
			c.mu.Unlock()
			return nil, err
		}
	}
	b := c.srv.pool.get(n)
	b.local = local
	if waited {
		if err := c.present(); err != nil {
			c.dropBuffer(b)
			return nil, err
		}
	}
	return b, nil
}

// dropBuffer gives back a buffer that no request has.
func (c *conn) dropBuffer(b *buffer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= b.charge()
	if b.local {
		c.local -= b.charge()
	} else {
		c.srv.budget.Release(b.charge())
	}
	c.srv.pool.put(b)
}

package nbd

import (
	"context"
	"encoding/binary"
	"errors"

	"skerry/nbd/internal/proto"
	"skerry/volume"
)

var errExtents = errors.New("device reported extents that do not cover the range")

// status begins a BLOCK_STATUS request on a goroutine of the connection.
func (c *conn) status(ctx context.Context, h *proto.Request) error {
	limit := maxExtents - 1
	if h.Flags&proto.CmdFlagReqOne != 0 {
		limit = 1
	}
	b, err := c.takeBuffer(ctx, 4+8*limit)
	if err != nil {
		return err
	}
	q := c.prepare(h)
	q.buf, q.Data, q.released = b, b.data(4+8*limit), true
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == c.srv.opts.Workers {
		c.waiting = append(c.waiting, q)
		return nil
	}
	c.running++
	c.workers.Go(func() { c.statusWorker(ctx, q) })
	return nil
}

// statusWorker answers q and then all that wait.
func (c *conn) statusWorker(ctx context.Context, q *request) {
	for q != nil {
		if err := q.extents(ctx); err != nil {
			q.fail(err)
		}
		c.box.Put(q, true)
		q = c.nextStatus()
	}
}

func (c *conn) nextStatus() *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.running--
		return nil
	}
	q := c.waiting[0]
	c.waiting = append(c.waiting[:0], c.waiting[1:]...)
	return q
}

// extents fills the buffer with the payload of a BLOCK_STATUS chunk. Extents that look the same to a client
// are joined; as many are reported as the buffer holds.
func (q *request) extents(ctx context.Context) error {
	binary.BigEndian.PutUint32(q.Data, contextID)
	pos, end := q.Offset, q.Offset+q.Length
	n := 4
	var length, state uint32
	put := func() {
		binary.BigEndian.PutUint32(q.Data[n:], length)
		binary.BigEndian.PutUint32(q.Data[n+4:], state)
		n += 8
	}
	gap := false
	err := q.conn.dev.Extents(ctx, q.Offset, q.Length, func(e volume.Extent) bool {
		to := min(e.Offset+e.Length, end)
		if e.Offset > pos || e.Length <= 0 {
			gap = true
			return false
		}
		if to <= pos {
			return true
		}
		s := allocation(e.Flags)
		if length > 0 && s != state {
			if put(); n == len(q.Data) {
				length = 0
				return false
			}
			length = 0
		}
		state = s
		length += uint32(to - pos)
		pos = to
		return pos < end
	})
	if err != nil {
		return err
	}
	if length > 0 {
		put()
	}
	if gap || n == 4 {
		return errExtents
	}
	q.length = n
	return nil
}

// allocation returns an extent's flags in the base:allocation context.
func allocation(f volume.ExtentFlags) uint32 {
	var s uint32
	if f&volume.Hole != 0 {
		s |= proto.StateHole
	}
	if f&volume.Zero != 0 {
		s |= proto.StateZero
	}
	return s
}

package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"skerry/nbd/internal/proto"
	"skerry/volume"
)

var errMagic = errors.New("request has a wrong magic number")

// kinds and flags that proto.md allows, by command.
var commands = [...]struct {
	kind  volume.Kind
	flags uint16
}{
	proto.CmdRead:        {volume.Read, proto.CmdFlagFUA | proto.CmdFlagDF},
	proto.CmdWrite:       {volume.Write, proto.CmdFlagFUA},
	proto.CmdFlush:       {volume.Flush, proto.CmdFlagFUA},
	proto.CmdTrim:        {volume.Discard, proto.CmdFlagFUA},
	proto.CmdCache:       {volume.Cache, proto.CmdFlagFUA},
	proto.CmdWriteZeroes: {volume.WriteZeroes, proto.CmdFlagFUA | proto.CmdFlagNoHole | proto.CmdFlagFastZero},
	proto.CmdBlockStatus: {volume.Read, proto.CmdFlagFUA | proto.CmdFlagReqOne},
}

// serve reads and carries out requests until the client disconnects (nil) or cannot be understood.
func (c *conn) serve(ctx context.Context) error {
	for {
		head, err := c.in.next(proto.RequestLen)
		if err != nil {
			if errors.Is(err, io.EOF) && c.in.r != c.in.w {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		h, ok := proto.GetRequest(head)
		if !ok {
			return errMagic
		}
		if h.Type == proto.CmdDisc {
			return nil
		}
		if err := c.room(); err != nil {
			return err
		}
		if changes(h.Type) && time.Since(c.in.oldest()) > c.srv.lag {
			if err := c.present(); err != nil {
				return err
			}
		}
		if err := c.dispatch(ctx, &h); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("payload of request: %w", err)
		}
		c.taken++
		if len(c.batch) >= c.share || c.batched >= batchBytes {
			c.flush()
		}
	}
}

// dispatch carries out one request, or begins to. An error breaks the connection.
func (c *conn) dispatch(ctx context.Context, h *proto.Request) error {
	if errno, message := c.check(h); errno != 0 {
		if h.Type == proto.CmdWrite {
			if err := c.in.discard(int64(h.Length)); err != nil {
				return err
			}
		}
		c.refuse(h, errno, message)
		return nil
	}
	c.in.limit = 0
	if h.Length == 0 && h.Type != proto.CmdFlush {
		q := c.take(h)
		c.ended(q)
		return nil
	}
	switch h.Type {
	case proto.CmdRead:
		return c.read(ctx, h)
	case proto.CmdWrite:
		return c.write(ctx, h)
	case proto.CmdBlockStatus:
		return c.status(ctx, h)
	}
	c.submit(c.prepare(h))
	return nil
}

// check returns the error that proto.md wants for a request that cannot be carried out, or 0.
func (c *conn) check(h *proto.Request) (errno uint32, message string) {
	if int(h.Type) >= len(commands) {
		return EINVAL, "unknown command"
	}
	cmd := &commands[h.Type]
	switch h.Type {
	case proto.CmdRead:
		if h.Length > MaxPayload {
			if c.structured {
				return EOVERFLOW, "read is longer than the maximum payload"
			}
			return EINVAL, ""
		}
	case proto.CmdWrite:
		if h.Length > MaxPayload {
			return EINVAL, "write is longer than the maximum payload"
		}
	case proto.CmdFlush:
		if h.Offset != 0 || h.Length != 0 {
			return EINVAL, "flush has an offset or a length"
		}
	case proto.CmdBlockStatus:
		if !c.meta {
			return EINVAL, "no metadata context was negotiated"
		}
		if h.Length == 0 {
			return EINVAL, "block status of no bytes"
		}
	}
	if h.Flags&^cmd.flags != 0 || h.Flags&proto.CmdFlagDF != 0 && !c.structured {
		return EINVAL, "unknown flag"
	}
	if h.Offset > math.MaxInt64 || h.Offset+uint64(h.Length) > math.MaxInt64 {
		return EINVAL, "offset and length overflow"
	}
	if changes(h.Type) && c.dev.ReadOnly() {
		return EPERM, "export is read-only"
	}
	if int64(h.Offset)+int64(h.Length) > c.dev.Size() {
		return beyondEnd(cmd.kind), "beyond the end of the export"
	}
	if h.Flags&proto.CmdFlagFastZero != 0 {
		f, ok := c.dev.(FastZeroer)
		if !ok || !f.FastZero(int64(h.Offset), int64(h.Length), requestFlags(h.Flags)) {
			return ENOTSUP, "not faster than writing"
		}
	}
	if c.stopping.Load() {
		return ESHUTDOWN, "server is shutting down"
	}
	return 0, ""
}

// changes reports whether a command changes the export.
func changes(command uint16) bool {
	return command == proto.CmdWrite || command == proto.CmdTrim || command == proto.CmdWriteZeroes
}

// prepare returns a request for the device.
func (c *conn) prepare(h *proto.Request) *request {
	q := c.take(h)
	q.Kind = commands[h.Type].kind
	q.Flags = requestFlags(h.Flags)
	return q
}

func requestFlags(f uint16) volume.Flags {
	var v volume.Flags
	if f&proto.CmdFlagFUA != 0 {
		v |= volume.FUA
	}
	if f&proto.CmdFlagNoHole != 0 {
		v |= volume.NoHole
	}
	return v
}

func (c *conn) read(ctx context.Context, h *proto.Request) error {
	b, err := c.takeBuffer(ctx, int(h.Length))
	if err != nil {
		return err
	}
	q := c.prepare(h)
	q.buf, q.Data = b, b.data(int(h.Length))
	q.Flags &^= volume.FUA
	if c.structured {
		q.Flags |= volume.WantHoles
		q.Holes = q.holes[:0]
		q.df = h.Flags&proto.CmdFlagDF != 0
	}
	c.submit(q)
	return nil
}

func (c *conn) write(ctx context.Context, h *proto.Request) error {
	n := int(h.Length)
	if n > maxStraight {
		b, err := c.takeBuffer(ctx, n)
		if err != nil {
			return err
		}
		if err := c.in.readFull(b.data(n)); err != nil {
			c.dropBuffer(b)
			return err
		}
		c.in.limit = preferredBlock // the next payload is best read into its own buffer too
		c.writeFrom(h, b)
		return nil
	}
	p, err := c.in.next(n)
	if err != nil {
		return err
	}
	if c.copies > 0 || c.in.detached.Load() >= maxPinned {
		c.copies = max(0, c.copies-1)
		b, err := c.takeBuffer(ctx, n)
		if err != nil {
			return err
		}
		copy(b.data(n), p)
		c.writeFrom(h, b)
		return nil
	}
	q := c.prepare(h)
	q.Data, q.pin = p, c.in.buf
	q.pin.pins.Add(1)
	if !c.dev.Submit(&q.Request) {
		c.copies = copyAfterPin
		return nil
	}
	q.pin.pins.Add(-1) // the connection still pins it
	q.pin = nil
	c.ended(q)
	return nil
}

// writeFrom submits a write of the payload in b.
func (c *conn) writeFrom(h *proto.Request, b *buffer) {
	q := c.prepare(h)
	q.buf, q.Data = b, b.data(int(h.Length))
	c.submit(q)
}

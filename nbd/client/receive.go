package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"skerry/nbd/internal/proto"
)

const (
	inputSize  = 256 << 10
	maxStatus  = 4 + 8<<20 // bytes of a BLOCK_STATUS chunk
	maxMessage = proto.ChunkLen + proto.MaxString + 64
)

// receiver reads replies and checks them. It belongs to the client's goroutine.
type receiver struct {
	c      *Client
	buf    []byte
	r, w   int
	status []byte
	one    []*Op // what was held, to be sent
}

func (in *receiver) init(c *Client) {
	in.c = c
	in.buf = make([]byte, inputSize)
}

// run takes in replies until the connection ends.
func (in *receiver) run() error {
	for {
		b, err := in.next(4)
		if err == nil {
			switch binary.BigEndian.Uint32(b) {
			case proto.MagicSimple:
				err = in.simple()
			case proto.MagicChunk:
				err = in.chunk()
			default:
				err = violated("magic number of reply %x", b)
			}
		}
		if err != nil {
			if errors.Is(err, ErrProtocol) {
				return err
			}
			return fmt.Errorf("%w: read reply: %w", ErrClosed, err)
		}
	}
}

// simple takes in the rest of a simple reply.
func (in *receiver) simple() error {
	b, err := in.next(proto.SimpleLen - 4)
	if err != nil {
		return err
	}
	errno := binary.BigEndian.Uint32(b)
	op, err := in.c.find(binary.BigEndian.Uint64(b[4:]))
	if err != nil {
		return err
	}
	switch {
	case op.Chunks > 0:
		return violated("simple reply in the middle of a structured one")
	case op.Kind == Read && in.c.structured:
		return violated("simple reply to a read")
	case errno != 0:
		op.Err = &ReplyError{Errno: Errno(errno)}
	case op.Kind == BlockStatus:
		return violated("simple reply to a block status")
	case op.Kind == Read:
		if err := in.readFull(op.Data); err != nil {
			return err
		}
	}
	in.c.end(op)
	return nil
}

// chunk takes in the rest of a structured reply chunk.
func (in *receiver) chunk() error {
	b, err := in.next(proto.ChunkLen - 4)
	if err != nil {
		return err
	}
	flags, typ := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	n := int64(binary.BigEndian.Uint32(b[12:]))
	op, err := in.c.find(binary.BigEndian.Uint64(b[4:]))
	if err != nil {
		return err
	}
	if !in.c.structured || flags&^proto.ChunkFlagDone != 0 {
		return violated("structured reply: negotiated %v, flags %#x", in.c.structured, flags)
	}
	op.Chunks++
	done := flags&proto.ChunkFlagDone != 0
	switch {
	case typ == proto.ChunkNone:
		if n != 0 || !done {
			return violated("NONE chunk of %d bytes, done %v", n, done)
		}
	case typ == proto.ChunkOffsetData && op.Kind == Read && n > 8:
		err = in.data(op, n-8)
	case typ == proto.ChunkOffsetHole && op.Kind == Read && n == 12:
		err = in.hole(op)
	case typ == proto.ChunkBlockStatus && op.Kind == BlockStatus:
		err = in.blockStatus(op, n)
	case typ&proto.ChunkFlagError != 0:
		err = in.failure(op, typ, n)
	default:
		err = violated("chunk of type %d, %d bytes, in the reply to command %d", typ, n, op.Kind)
	}
	if err != nil {
		return err
	}
	if done {
		if err := op.finish(len(in.c.Contexts)); err != nil {
			return err
		}
		in.c.end(op)
	}
	return nil
}

func (in *receiver) data(op *Op, n int64) error {
	b, err := in.next(8)
	if err != nil {
		return err
	}
	off := int64(binary.BigEndian.Uint64(b))
	if err := op.cover(off, n); err != nil {
		return err
	}
	return in.readFull(op.Data[off-op.Offset:][:n])
}

func (in *receiver) hole(op *Op) error {
	b, err := in.next(12)
	if err != nil {
		return err
	}
	off, n := int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint32(b[8:]))
	if err := op.cover(off, n); err != nil {
		return err
	}
	clear(op.Data[off-op.Offset:][:n])
	return nil
}

func (in *receiver) failure(op *Op, typ uint16, n int64) error {
	least := int64(6)
	if typ == proto.ChunkErrorOffset {
		least = 14
	}
	if n < least || n > maxMessage {
		return violated("error chunk of %d bytes", n)
	}
	b, err := in.next(int(n))
	if err != nil {
		return err
	}
	errno, m := binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint16(b[4:]))
	known := typ == proto.ChunkError || typ == proto.ChunkErrorOffset
	if errno == 0 || m > proto.MaxString || m > n-least || known && m != n-least {
		return violated("error chunk of %d bytes: error %d, message of %d", n, errno, m)
	}
	if typ == proto.ChunkErrorOffset {
		if off := int64(binary.BigEndian.Uint64(b[n-8:])); off < op.Offset || off >= op.Offset+op.Length {
			return violated("error at %d in the reply to %d bytes at %d", off, op.Length, op.Offset)
		}
	}
	if op.reply == nil {
		op.reply = &ReplyError{Errno: Errno(errno), Message: string(b[6 : 6+m])}
	}
	return nil
}

func (in *receiver) blockStatus(op *Op, n int64) error {
	if n < 12 || n > maxStatus || (n-4)%8 != 0 {
		return violated("block status of %d bytes", n)
	}
	if int64(cap(in.status)) < n {
		in.status = make([]byte, n)
	}
	b := in.status[:n]
	if err := in.readFull(b); err != nil {
		return err
	}
	at := -1
	for i, c := range in.c.Contexts {
		if c.ID == binary.BigEndian.Uint32(b) {
			at = i
		}
	}
	if at < 0 || op.seen&(1<<at) != 0 {
		return violated("block status of context %d, unknown or again", binary.BigEndian.Uint32(b))
	}
	op.seen |= 1 << at
	for len(op.Status) < len(in.c.Contexts) {
		op.Status = append(op.Status, nil)
	}
	all := op.Status[at][:0]
	sum := int64(0)
	for b = b[4:]; len(b) > 0; b = b[8:] {
		e := Extent{Length: binary.BigEndian.Uint32(b), Flags: binary.BigEndian.Uint32(b[4:])}
		if e.Length == 0 || sum >= op.Length {
			return violated("extent %d of %d bytes after %d of %d", len(all), e.Length, sum, op.Length)
		}
		sum += int64(e.Length)
		all = append(all, e)
	}
	op.Status[at] = all
	if op.Flags&ReqOne != 0 && (len(all) != 1 || sum > op.Length) {
		return violated("%d extents of %d bytes despite REQ_ONE", len(all), sum)
	}
	if op.Offset+sum > in.c.Export.Size {
		return violated("extents end at %d, beyond the export's %d", op.Offset+sum, in.c.Export.Size)
	}
	return nil
}

// next returns the next n bytes, at most inputSize.
func (in *receiver) next(n int) ([]byte, error) {
	if in.w-in.r < n && in.r+n > len(in.buf) || in.r == in.w {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for in.w-in.r < n {
		m, err := in.read(in.buf[in.w:])
		in.w += m
		if err != nil && in.w-in.r < n {
			return nil, err
		}
	}
	b := in.buf[in.r : in.r+n]
	in.r += n
	return b, nil
}

// readFull fills p.
func (in *receiver) readFull(p []byte) error {
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	for n < len(p) {
		if len(p)-n < inputSize/4 {
			b, err := in.next(len(p) - n)
			if err != nil {
				return err
			}
			copy(p[n:], b)
			return nil
		}
		m, err := in.read(p[n:])
		n += m
		if err != nil && n < len(p) {
			return err
		}
	}
	return nil
}

// read reads from the connection. What was submitted meanwhile is sent first.
func (in *receiver) read(p []byte) (int, error) {
	c := in.c
	c.mu.Lock()
	c.holding = false
	in.one, c.held = c.held, in.one[:0]
	c.mu.Unlock()
	if len(in.one) > 0 {
		c.box.PutAll(in.one, false)
		clear(in.one)
	}
	n, err := c.conn.Read(p)
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	c.mu.Lock()
	c.holding = true
	c.mu.Unlock()
	return n, err
}

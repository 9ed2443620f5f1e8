package nbd

import (
	"encoding/binary"

	"skerry/nbd/internal/outbox"
	"skerry/nbd/internal/proto"
	"skerry/volume"
)

// contextID is the id of the base:allocation context.
const contextID = 1

// render adds the reply to a request to v.
func (c *conn) render(v *outbox.Vec, q *request) {
	read := q.command == proto.CmdRead
	switch {
	case q.errno != 0 && c.structured:
		c.renderError(v, q)
	case read && c.structured:
		c.renderRead(v, q)
	case read && q.errno == 0 && q.buf != nil:
		head := headroom - proto.SimpleLen
		proto.PutSimple(q.buf.mem[head:], 0, q.cookie)
		v.Data(q.buf.mem[head : headroom+len(q.Data)])
	case q.command == proto.CmdBlockStatus && q.errno == 0:
		head := headroom - proto.ChunkLen
		proto.PutChunk(q.buf.mem[head:], proto.ChunkFlagDone, proto.ChunkBlockStatus, q.cookie, uint32(q.length))
		v.Data(q.buf.mem[head : headroom+q.length])
	default:
		proto.PutSimple(v.Head(proto.SimpleLen), q.errno, q.cookie)
	}
}

func (c *conn) renderError(v *outbox.Vec, q *request) {
	m := q.message[:min(len(q.message), maxMessage)]
	b := v.Head(proto.ChunkLen + 6 + len(m))
	proto.PutChunk(b, proto.ChunkFlagDone, proto.ChunkError, q.cookie, uint32(6+len(m)))
	binary.BigEndian.PutUint32(b[proto.ChunkLen:], q.errno)
	binary.BigEndian.PutUint16(b[proto.ChunkLen+4:], uint16(len(m)))
	copy(b[proto.ChunkLen+6:], m)
}

// renderRead adds the chunks of a read.
func (c *conn) renderRead(v *outbox.Vec, q *request) {
	end := q.Offset + int64(len(q.Data))
	if len(q.Data) == 0 {
		proto.PutChunk(v.Head(proto.ChunkLen), proto.ChunkFlagDone, proto.ChunkNone, q.cookie, 0)
		return
	}
	holes := q.Holes
	if q.df && len(holes) > 0 && holes[0].Length < end-q.Offset {
		for _, h := range holes {
			clear(q.Data[h.Offset-q.Offset:][:h.Length])
		}
		holes = nil
	}
	pos := q.Offset
	for _, h := range holes {
		c.renderData(v, q, pos, h.Offset, false)
		pos = h.Offset + h.Length
		c.renderHole(v, q, h, pos == end)
	}
	c.renderData(v, q, pos, end, true)
}

// renderData adds [from, to) of the device, if not empty, as a chunk.
func (c *conn) renderData(v *outbox.Vec, q *request, from, to int64, last bool) {
	if from == to {
		return
	}
	n := proto.ChunkLen + 8
	at := headroom + int(from-q.Offset)
	var head []byte
	if from == q.Offset { // the room before the data is free
		head = q.buf.mem[at-n : at]
	} else {
		head = v.Head(n)
	}
	proto.PutChunk(head, chunkFlags(last), proto.ChunkOffsetData, q.cookie, uint32(8+to-from))
	binary.BigEndian.PutUint64(head[proto.ChunkLen:], uint64(from))
	if from == q.Offset {
		at -= n
	}
	v.Data(q.buf.mem[at : headroom+int(to-q.Offset)])
}

func (c *conn) renderHole(v *outbox.Vec, q *request, h volume.Extent, last bool) {
	b := v.Head(proto.ChunkLen + 12)
	proto.PutChunk(b, chunkFlags(last), proto.ChunkOffsetHole, q.cookie, 12)
	binary.BigEndian.PutUint64(b[proto.ChunkLen:], uint64(h.Offset))
	binary.BigEndian.PutUint32(b[proto.ChunkLen+8:], uint32(h.Length))
}

func chunkFlags(last bool) uint16 {
	if last {
		return proto.ChunkFlagDone
	}
	return 0
}

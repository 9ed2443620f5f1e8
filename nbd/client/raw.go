package client

import (
	"encoding/binary"
	"io"

	"skerry/nbd/internal/proto"
)

// RawRequest is a request as it stands on the wire.
type RawRequest = proto.Request

// AppendRequest appends a request's header to b.
func AppendRequest(b []byte, r RawRequest) []byte {
	b = append(b, make([]byte, proto.RequestLen)...)
	proto.PutRequest(b[len(b)-proto.RequestLen:], r)
	return b
}

// RawReply is a simple reply without its data, or one chunk of a structured reply.
type RawReply struct {
	Structured bool
	Cookie     uint64
	Errno      uint32 // of a simple reply
	Flags      uint16
	Type       uint16
	Payload    []byte // of a chunk
}

// Error returns the error value of a simple reply or of an error chunk; 0 is success.
func (r RawReply) Error() Errno {
	if r.Structured && r.Type&proto.ChunkFlagError != 0 && len(r.Payload) >= 4 {
		return Errno(binary.BigEndian.Uint32(r.Payload))
	}
	return Errno(r.Errno)
}

// ReadReply reads one reply or chunk. The data of a simple reply to a read is left to the caller.
func ReadReply(from io.Reader) (RawReply, error) {
	b := make([]byte, proto.SimpleLen)
	if _, err := io.ReadFull(from, b); err != nil {
		return RawReply{}, err
	}
	r := RawReply{Cookie: binary.BigEndian.Uint64(b[8:])}
	switch binary.BigEndian.Uint32(b) {
	case proto.MagicSimple:
		r.Errno = binary.BigEndian.Uint32(b[4:])
		return r, nil
	case proto.MagicChunk:
		r.Structured = true
		r.Flags, r.Type = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		if _, err := io.ReadFull(from, b[:4]); err != nil {
			return r, err
		}
		n := binary.BigEndian.Uint32(b)
		if n > maxStatus+(32<<20) {
			return r, violated("chunk of %d bytes", n)
		}
		r.Payload = make([]byte, n)
		_, err := io.ReadFull(from, r.Payload)
		return r, err
	}
	return r, violated("magic number of reply %x", b[:4])
}

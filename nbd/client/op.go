package client

import (
	"skerry/nbd/internal/proto"
)

// Kind is a command.
type Kind uint16

// The commands.
const (
	Read        = Kind(proto.CmdRead)
	Write       = Kind(proto.CmdWrite)
	Flush       = Kind(proto.CmdFlush)
	Trim        = Kind(proto.CmdTrim)
	Cache       = Kind(proto.CmdCache)
	WriteZeroes = Kind(proto.CmdWriteZeroes)
	BlockStatus = Kind(proto.CmdBlockStatus)
)

// Flags of commands.
const (
	FUA      = proto.CmdFlagFUA
	NoHole   = proto.CmdFlagNoHole
	DF       = proto.CmdFlagDF
	ReqOne   = proto.CmdFlagReqOne
	FastZero = proto.CmdFlagFastZero
)

// States of an extent in the base:allocation context.
const (
	StateHole = proto.StateHole
	StateZero = proto.StateZero
)

// Op is one request. The caller fills the first part; from Submit until Done is called the
// whole belongs to the client. It may be used again then.
type Op struct {
	Kind   Kind
	Flags  uint16
	Offset int64  // bytes
	Length int64  // bytes; for Read and Write it is len(Data)
	Data   []byte // filled by Read, sent by Write
	// Done is called when the request has ended, on the client's goroutine. It must not block, but may submit.
	Done func(op *Op)

	// Err is the outcome: a *ReplyError, or why the connection is gone.
	Err error
	// Status, of a BlockStatus, holds the extents of each selected context, in the order of Client.Contexts. Its memory
	// is used again by the next request.
	Status [][]Extent
	// Chunks counts the chunks of a structured reply.
	Chunks int

	cookie   uint64
	got      int64 // bytes covered by content chunks
	spans    []span
	contents int
	seen     uint64 // contexts, by index
	reply    *ReplyError
	wait     chan struct{}
}

// Extent is one descriptor of a block status.
type Extent struct {
	Length, Flags uint32
}

// span is a part [from, to) of a request that a chunk covered.
type span struct{ from, to int64 }

func (op *Op) reset() {
	op.Err, op.Chunks, op.got, op.spans, op.contents, op.seen, op.reply = nil, 0, 0, op.spans[:0], 0, 0, nil
	if op.Kind == Read || op.Kind == Write {
		op.Length = int64(len(op.Data))
	}
}

// cover notes that a chunk describes [off, off+n).
func (op *Op) cover(off, n int64) error {
	if off < op.Offset || n <= 0 || n > op.Offset+op.Length-off {
		return violated("chunk of %d bytes at %d in the reply to %d bytes at %d", n, off, op.Length, op.Offset)
	}
	if op.contents++; op.contents > 1 && op.Flags&DF != 0 {
		return violated("fragmented reply despite DF")
	}
	for _, s := range op.spans {
		if off < s.to && s.from < off+n {
			return violated("chunk at %d overlaps an earlier one", off)
		}
	}
	op.got += n
	if last := len(op.spans) - 1; last >= 0 && op.spans[last].to == off {
		op.spans[last].to += n
	} else {
		op.spans = append(op.spans, span{off, off + n})
	}
	return nil
}

// finish checks a reply that has come to its end.
func (op *Op) finish(contexts int) error {
	if op.reply != nil {
		op.Err = op.reply
		return nil
	}
	if op.Kind == Read && op.got != op.Length {
		return violated("read of %d bytes answered with %d", op.Length, op.got)
	}
	if op.Kind == BlockStatus && op.seen != 1<<contexts-1 {
		return violated("block status without all contexts: %#x of %d", op.seen, contexts)
	}
	return nil
}

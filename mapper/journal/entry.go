package journal

import (
	"encoding/binary"
	"iter"

	"skerry/chunk"
)

// MaxEntry is the number of bytes that an entry takes at most, not counting the blocks of a Data entry.
const MaxEntry = 32

// Kind says what an [Entry] records.
type Kind uint8

// The kinds of entries; [Batch] has a method for each.
const (
	KindTouch Kind = 1 + iota
	KindDelta
	KindData
	KindSupersede
	KindFlush
	kinds
)

// Flags of an encoded delta.
const (
	flagZero    = 1 << 0
	flagDurable = 1 << 1
)

// Lengths in bytes of encoded entries, without the blocks of data.
const (
	flushSize  = 16
	objectSize = 24 // touch, delta
	rangeSize  = 32 // data, supersede
)

// Entry is one record of a journal.
type Entry struct {
	Kind       Kind
	Object     Object // all but Flush
	First, End int    // blocks; Delta, Data and Supersede
	Zero       bool   // Delta: the blocks hold zeros
	Durable    bool   // Delta: counts by itself
	Before     uint64 // Data and Supersede: the first frame whose entries are newer; 0: the place in the journal decides
	Covers     uint64 // Flush
	Data       []byte // Data: whole blocks, valid as long as the frame
}

// Frame is one frame as [Read] hands it out. It is valid until the function that
// receives it returns.
type Frame struct {
	Seq        uint64
	Generation uint32
	Boot       [16]byte
	Synced     uint64 // sequence that was known durable when the frame was written

	body []byte // checked
}

// Entries yields the frame's entries in order.
func (f Frame) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for b := f.body; len(b) > 0; {
			e, n := decodeEntry(b, f.Seq)
			if n == 0 || !yield(e) {
				return
			}
			b = b[n:]
		}
	}
}

// checkBody reports whether b is a run of whole, meaningful entries of frame seq.
func checkBody(b []byte, seq uint64) bool {
	for len(b) > 0 {
		_, n := decodeEntry(b, seq)
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// decodeEntry reads the entry at the start of b, of frame seq, and returns its length, or 0 if it is none.
func decodeEntry(b []byte, seq uint64) (Entry, int) {
	if len(b) < flushSize {
		return Entry{}, 0
	}
	e := Entry{
		Kind:  Kind(b[0]),
		First: int(binary.LittleEndian.Uint16(b[2:])),
		End:   int(binary.LittleEndian.Uint16(b[4:])),
	}
	flags := b[1]
	if b[6] != 0 || b[7] != 0 || e.Kind == 0 || e.Kind >= kinds || (flags != 0 && e.Kind != KindDelta) || flags&^(flagZero|flagDurable) != 0 {
		return Entry{}, 0
	}
	if e.Kind == KindFlush {
		e.Covers = binary.LittleEndian.Uint64(b[8:])
		if e.First != 0 || e.End != 0 || e.Covers >= seq {
			return Entry{}, 0
		}
		return e, flushSize
	}
	if len(b) < objectSize {
		return Entry{}, 0
	}
	e.Object.Chunk = binary.LittleEndian.Uint64(b[8:])
	e.Object.Serial = chunk.Serial(binary.LittleEndian.Uint64(b[16:]))
	if e.Kind == KindTouch {
		if e.First != 0 || e.End != 0 {
			return Entry{}, 0
		}
		return e, objectSize
	}
	if !validRange(e.First, e.End) {
		return Entry{}, 0
	}
	if e.Kind == KindDelta {
		e.Zero, e.Durable = flags&flagZero != 0, flags&flagDurable != 0
		return e, objectSize
	}
	if len(b) < rangeSize {
		return Entry{}, 0
	}
	e.Before = binary.LittleEndian.Uint64(b[24:])
	if e.Before > seq {
		return Entry{}, 0
	}
	if e.Kind == KindSupersede {
		return e, rangeSize
	}
	n := rangeSize + (e.End-e.First)*chunk.BlockSize
	if len(b) < n {
		return Entry{}, 0
	}
	e.Data = b[rangeSize:n:n]
	return e, n
}

// validRange reports whether [first, end) can be blocks of a chunk.
func validRange(first, end int) bool {
	return first >= 0 && first < end && end <= chunk.MaxBlocks
}

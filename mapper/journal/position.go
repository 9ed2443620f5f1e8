package journal

import (
	"encoding/binary"
	"fmt"

	"skerry/chunk"
)

// PositionSize is the length in bytes of an encoded [Position].
const PositionSize = 40

// firstLap is the lap of a journal's first frame, so that zeros are never a frame.
const firstLap = 1

// Position is a place between two frames of a journal, where a reader starts. The zero
// value names no journal.
type Position struct {
	Object chunk.Serial // names the journal's object
	Offset int64        // bytes, aligned
	Lap    uint32
	Seq    uint64 // of the frame that is expected here
	Check  uint32 // checksum of the frame before, 0 for the first
	Size   int64  // bytes of the journal's object
}

// IsZero reports whether p names no journal.
func (p Position) IsZero() bool { return p == Position{} }

// AppendTo appends the PositionSize bytes that [Position.Decode] reads.
func (p Position) AppendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Object))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Offset))
	b = binary.LittleEndian.AppendUint64(b, p.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Size))
	b = binary.LittleEndian.AppendUint32(b, p.Lap)
	return binary.LittleEndian.AppendUint32(b, p.Check)
}

// Decode sets p from the first PositionSize bytes of b. It accepts the zero value, and
// positions that a journal can have; p is unchanged on error.
func (p *Position) Decode(b []byte) error {
	if len(b) < PositionSize {
		return fmt.Errorf("decode journal position of %d bytes: %w", len(b), ErrDamaged)
	}
	q := Position{
		Object: chunk.Serial(binary.LittleEndian.Uint64(b)),
		Offset: int64(binary.LittleEndian.Uint64(b[8:])),
		Seq:    binary.LittleEndian.Uint64(b[16:]),
		Size:   int64(binary.LittleEndian.Uint64(b[24:])),
		Lap:    binary.LittleEndian.Uint32(b[32:]),
		Check:  binary.LittleEndian.Uint32(b[36:]),
	}
	if !q.IsZero() && !q.valid() {
		return fmt.Errorf("decode journal position %+v: %w", q, ErrDamaged)
	}
	*p = q
	return nil
}

// valid reports whether a journal can have this position.
func (p Position) valid() bool {
	return p.Size >= MinSize && p.Size <= MaxSize && p.Size%Align == 0 &&
		p.Offset >= 0 && p.Offset < p.Size && p.Offset%Align == 0 &&
		p.Lap >= firstLap && p.Seq >= 1
}

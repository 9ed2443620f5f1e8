package journal

import (
	"encoding/binary"
	"slices"

	"skerry/chunk"
)

// Batch collects entries that are appended together, in order, in one frame. The zero
// value is empty and ready. A batch is used by one goroutine at a time, and belongs to the
// writer during [Writer.Append]. It may be used again after [Batch.Reset], and then
// allocates nothing. An entry that has no room or no meaning is not added, and makes
// Append fail with [ErrTooLarge] or [ErrInvalid].
type Batch struct {
	buf    []byte // room for the frame's header, then the entries
	before uint64 // of entries to come
	newest uint64 // the largest sequence that was named; it must have been appended before
	err    error

	// The writer's, during Append.
	next *Batch
	wake chan bool // true: lead; false: done
	seq  uint64
	fail error
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.buf, b.before, b.newest, b.err = b.buf[:0], 0, 0, nil
}

// Empty reports whether the batch has no entry.
func (b *Batch) Empty() bool { return b.Len() == 0 }

// Len returns the bytes that the entries take.
func (b *Batch) Len() int { return max(len(b.buf)-headerSize, 0) }

// Room returns the bytes that further entries may take: [MaxEntry] each is enough, and
// chunk.BlockSize for each block of a Data entry.
func (b *Batch) Room() int { return MaxFrame - b.Len() }

// Touch records that o is about to be written or punched in place.
func (b *Batch) Touch(o Object) {
	b.object(KindTouch, 0, o, 0, 0, objectSize)
}

// Delta records that blocks [first, end) of o hold data, or zeros. durable says that it
// counts by itself once its frame is durable, since the same batch carries the data.
func (b *Batch) Delta(o Object, first, end int, zero, durable bool) {
	var flags byte
	if zero {
		flags |= flagZero
	}
	if durable {
		flags |= flagDurable
	}
	if b.ranged(first, end) {
		b.object(KindDelta, flags, o, first, end, objectSize)
	}
}

// AsOf says of the Data and Supersede entries that are added from now on that they were captured
// when seq was the last frame appended: entries in later frames are newer, also in those that
// lie before this batch. Without it, and after Reset, they are newer than all before them. The package's
// documentation says what a flush gives.
func (b *Batch) AsOf(seq uint64) {
	b.before = seq + 1
	b.newest = max(b.newest, seq)
}

// Data records the content of whole blocks of o from block first on; it copies it.
func (b *Batch) Data(o Object, first int, blocks []byte) {
	if len(blocks)%chunk.BlockSize != 0 {
		b.invalid()
		return
	}
	copy(b.DataFill(o, first, len(blocks)/chunk.BlockSize), blocks)
}

// DataFill is Data for n blocks whose content the caller puts into the result before it calls
// any other method of the batch. It returns nil if there is no room.
func (b *Batch) DataFill(o Object, first, n int) []byte {
	if n > chunk.MaxBlocks || !b.ranged(first, first+n) {
		b.invalid()
		return nil
	}
	e := b.object(KindData, 0, o, first, first+n, rangeSize+n*chunk.BlockSize)
	if e == nil {
		return nil
	}
	binary.LittleEndian.PutUint64(e[24:], b.before)
	return e[rangeSize:]
}

// Supersede records that older data of blocks [first, end) of o in the journal is void, because
// the object itself is durable with newer content.
func (b *Batch) Supersede(o Object, first, end int) {
	if !b.ranged(first, end) {
		return
	}
	if e := b.object(KindSupersede, 0, o, first, end, rangeSize); e != nil {
		binary.LittleEndian.PutUint64(e[24:], b.before)
	}
}

// Flush records that all deltas in frames with a sequence up to covers are durable, and
// makes the Data and Supersede entries since the Flush entry before it count. covers is the last frame
// that was appended when the flush captured what is dirty.
func (b *Batch) Flush(covers uint64) {
	e := b.grow(flushSize)
	if e == nil {
		return
	}
	clear(e[:8])
	e[0] = byte(KindFlush)
	binary.LittleEndian.PutUint64(e[8:], covers)
	b.newest = max(b.newest, covers)
}

// object adds an entry of size bytes about o and returns it, or nil. Bytes from 24 on are left to the caller.
func (b *Batch) object(k Kind, flags byte, o Object, first, end, size int) []byte {
	e := b.grow(size)
	if e == nil {
		return nil
	}
	e[0], e[1] = byte(k), flags
	binary.LittleEndian.PutUint16(e[2:], uint16(first))
	binary.LittleEndian.PutUint16(e[4:], uint16(end))
	e[6], e[7] = 0, 0
	binary.LittleEndian.PutUint64(e[8:], o.Chunk)
	binary.LittleEndian.PutUint64(e[16:], uint64(o.Serial))
	return e
}

// grow returns n more bytes, whose content is undefined, or nil.
func (b *Batch) grow(n int) []byte {
	if b.err != nil {
		return nil
	}
	if n > b.Room() {
		b.err = ErrTooLarge
		return nil
	}
	old := max(len(b.buf), headerSize)
	b.buf = slices.Grow(b.buf, old+n-len(b.buf))[:old+n]
	return b.buf[old:]
}

// ranged reports whether [first, end) can be blocks, and spoils the batch if not.
func (b *Batch) ranged(first, end int) bool {
	if !validRange(first, end) {
		b.invalid()
		return false
	}
	return true
}

// invalid spoils the batch.
func (b *Batch) invalid() {
	if b.err == nil {
		b.err = ErrInvalid
	}
}

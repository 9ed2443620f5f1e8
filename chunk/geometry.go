package chunk

import (
	"fmt"
	"math/bits"
)

// Sizes in bytes. A block is the unit of copy-on-write; a sector is the unit that
// a crash leaves whole.
const (
	BlockSize   = 4 << 10
	SectorSize  = 512
	MinSize     = 64 << 10
	MaxSize     = 32 << 20
	DefaultSize = 4 << 20
	// MaxBlocks is the number of blocks of the largest chunk.
	MaxBlocks = MaxSize / BlockSize
)

// Geometry says how a volume is cut: its chunk size, a power of two. The zero value is not valid.
type Geometry struct{ shift uint8 }

// NewGeometry returns the geometry for a chunk size in bytes: a power of two from MinSize to MaxSize.
func NewGeometry(size int64) (Geometry, error) {
	if size < MinSize || size > MaxSize || size&(size-1) != 0 {
		return Geometry{}, fmt.Errorf("chunk size %d: want a power of two from 64K to 32M", size)
	}
	return Geometry{shift: uint8(bits.TrailingZeros64(uint64(size)))}, nil
}

// Size returns the chunk size in bytes.
func (g Geometry) Size() int64 { return 1 << g.shift }

// Blocks returns the number of blocks of a chunk.
func (g Geometry) Blocks() int { return int(g.Size() / BlockSize) }

// Index returns the index of the chunk that holds the byte at off.
func (g Geometry) Index(off int64) uint64 { return uint64(off) >> g.shift }

// Within returns the position of the byte at off in its chunk.
func (g Geometry) Within(off int64) int64 { return off & (g.Size() - 1) }

// Start returns the offset of a chunk's first byte.
func (g Geometry) Start(index uint64) int64 { return int64(index << g.shift) }

// Count returns how many chunks a volume of size bytes has.
func (g Geometry) Count(size int64) uint64 { return uint64(size+g.Size()-1) >> g.shift }

// Piece is the part of a byte range inside one chunk.
type Piece struct {
	Index  uint64 // the chunk
	Off    int64  // bytes from the chunk's start
	Length int64  // bytes
}

// First cuts the first piece off the range [off, off+n); the rest begins Length bytes further. n must be positive.
func (g Geometry) First(off, n int64) Piece {
	w := g.Within(off)
	return Piece{Index: g.Index(off), Off: w, Length: min(n, g.Size()-w)}
}

// Blocks returns the blocks that a piece touches, [first, end).
func (p Piece) Blocks() (first, end int) {
	return int(p.Off / BlockSize), int((p.Off + p.Length + BlockSize - 1) / BlockSize)
}

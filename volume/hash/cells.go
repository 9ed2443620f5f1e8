package hash

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
)

// maxCells bounds the cells of a [Tree].
const maxCells = 1 << 20

// Cell is the hash of one part of a content.
type Cell struct {
	Index uint32
	Hash  [Size]byte
}

// Tree is the hash of a content together with those of its parts.
type Tree struct {
	Size  int64 // bytes of content
	Sum   Sum
	Grain uint8  // a cell is 2^Grain leaves; the last one may be shorter
	Cells []Cell // by ascending index; one that is missing is whole and zeros
}

// GrainOf returns the grain of trees of a content of size bytes.
func GrainOf(size int64) uint8 {
	leaves := uint64(size+LeafSize-1) / LeafSize
	return uint8(max(0, bits.Len64((max(leaves, 1)-1)/maxCells)))
}

// CellSize returns the bytes of content that a cell stands for.
func (t *Tree) CellSize() int64 { return LeafSize << t.Grain }

// Grow returns the hash of the content of dev with those of its parts. It takes up to 40 MiB of memory.
func Grow(ctx context.Context, dev Origin, o Options) (*Tree, error) {
	r := &Tree{Size: dev.Size(), Grain: GrainOf(dev.Size())}
	t := newTree(int(r.Grain), func(cell uint64, h [Size]byte) {
		r.Cells = append(r.Cells, Cell{Index: uint32(cell), Hash: h})
	})
	if err := grow(ctx, t, dev, o, nil); err != nil {
		return nil, err
	}
	r.Sum = t.sum(r.Size)
	return r, nil
}

// ErrMismatch says that content is not what was hashed.
var ErrMismatch = errors.New("content does not match its hash")

// Verify compares the content of dev with what was hashed, and calls damaged with each part that is not that, or that cannot be
// read, in ascending order and one at a time. Its own error says only what kept it from comparing; it fails with ErrMismatch if the sizes differ or r
// does not fit itself.
func (r *Tree) Verify(ctx context.Context, dev Origin, o Options, damaged func(off, n int64, err error)) error {
	if dev.Size() != r.Size || r.Grain != GrainOf(r.Size) {
		return fmt.Errorf("%w: %d bytes in parts of %d, want %d", ErrMismatch, dev.Size(), r.CellSize(), r.Size)
	}
	v := verifier{r: r, damaged: damaged}
	t := newTree(int(r.Grain), v.cell)
	if err := grow(ctx, t, dev, o, v.failed); err != nil {
		return err
	}
	sum := t.sum(r.Size)
	v.missed(^uint64(0))
	if !v.found && sum != r.Sum {
		return fmt.Errorf("%w: its parts are right, their sum is not", ErrMismatch)
	}
	return nil
}

// verifier compares cells with those of a tree.
type verifier struct {
	r       *Tree
	next    int // in r.Cells
	damaged func(off, n int64, err error)
	found   bool

	unread uint64 // cell + 1 of which a leaf could not be read
	err    error  // the first such
}

// failed notes a leaf that cannot be read. The cells before its own have been seen, or are zeros.
func (v *verifier) failed(leaf uint64, err error) {
	if cell := leaf>>v.r.Grain + 1; cell != v.unread {
		v.unread, v.err = cell, err
	}
}

// cell compares the next cell that is not zeros.
func (v *verifier) cell(index uint64, h [Size]byte) {
	v.missed(index)
	want := [Size]byte{}
	if v.next < len(v.r.Cells) && uint64(v.r.Cells[v.next].Index) == index {
		want = v.r.Cells[v.next].Hash
		v.next++
	}
	switch {
	case v.unread == index+1:
		v.tell(index, v.err)
	case want != h:
		v.tell(index, ErrMismatch)
	}
}

// missed tells of cells before index that should not be zeros.
func (v *verifier) missed(index uint64) {
	for ; v.next < len(v.r.Cells) && uint64(v.r.Cells[v.next].Index) < index; v.next++ {
		v.tell(uint64(v.r.Cells[v.next].Index), ErrMismatch)
	}
}

func (v *verifier) tell(index uint64, err error) {
	v.found = true
	off := int64(index) * v.r.CellSize()
	v.damaged(off, min(v.r.CellSize(), v.r.Size-off), err)
}

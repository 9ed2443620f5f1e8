package hash

import (
	"math/bits"

	"github.com/zeebo/blake3"
)

// noGrain is the grain of a tree that keeps no cells.
const noGrain = 64

// tree takes leaves from left to right and joins what is complete. It is for one goroutine.
type tree struct {
	grain int // the height of cells
	keep  func(cell uint64, h [Size]byte)

	hasher *blake3.Hasher
	zeros  [][Size]byte // of complete subtrees of zeros, by height
	peaks  []peak       // complete subtrees that wait for their right neighbours, the largest first
	leaves uint64       // added so far
}

type peak struct {
	hash   [Size]byte
	height int
}

// newTree returns an empty tree. keep is called with the hashes of the subtrees of height grain, the last of which may be smaller, in
// ascending order; not with those of whole ones that are zeros.
func newTree(grain int, keep func(cell uint64, h [Size]byte)) *tree {
	return &tree{grain: grain, keep: keep, hasher: blake3.NewDeriveKey(nodeContext)}
}

// node returns the hash above two.
func (t *tree) node(left, right [Size]byte) (h [Size]byte) {
	t.hasher.Reset()
	// A hasher's Write never fails.
	_, _ = t.hasher.Write(left[:])
	_, _ = t.hasher.Write(right[:])
	t.hasher.Sum(h[:0])
	return h
}

// zero returns the hash of a complete subtree of zeros.
func (t *tree) zero(height int) [Size]byte {
	if len(t.zeros) == 0 {
		var z [Size]byte
		blake3.DeriveKey(leafContext, make([]byte, LeafSize), z[:])
		t.zeros = append(t.zeros, z)
	}
	for len(t.zeros) <= height {
		last := t.zeros[len(t.zeros)-1]
		t.zeros = append(t.zeros, t.node(last, last))
	}
	return t.zeros[height]
}

// add adds a complete subtree, whose place is a multiple of its size.
func (t *tree) add(h [Size]byte, height int) {
	t.leaves += 1 << height
	t.notice(h, height)
	for n := len(t.peaks); n > 0 && t.peaks[n-1].height == height; n-- {
		h = t.node(t.peaks[n-1].hash, h)
		height++
		t.peaks = t.peaks[:n-1]
		t.notice(h, height)
	}
	t.peaks = append(t.peaks, peak{h, height})
}

// notice tells of a cell that is complete.
func (t *tree) notice(h [Size]byte, height int) {
	if height == t.grain && h != t.zero(height) {
		t.keep(t.leaves>>height-1, h)
	}
}

// addZeros adds n leaves of zeros.
func (t *tree) addZeros(n uint64) {
	for n > 0 {
		// The largest subtree that begins here and is not more than n.
		height := min(bits.TrailingZeros64(t.leaves), bits.Len64(n)-1)
		t.add(t.zero(height), height)
		n -= 1 << height
	}
}

// sum ends the tree and returns the hash of all, of a content of size bytes.
func (t *tree) sum(size int64) Sum {
	var root [Size]byte
	for i := len(t.peaks) - 1; i >= 0; i-- {
		p := t.peaks[i]
		if p.height >= t.grain && i+1 < len(t.peaks) && t.peaks[i+1].height < t.grain {
			t.keep(t.leaves>>t.grain, root)
		}
		if i == len(t.peaks)-1 {
			root = p.hash
		} else {
			root = t.node(p.hash, root)
		}
	}
	if len(t.peaks) > 0 && t.peaks[0].height < t.grain && t.keep != nil {
		t.keep(0, root)
	}
	return sumOf(size, root)
}

package chunk

import "math/bits"

// Bitmap is a set of the blocks of one chunk. Its length in bits is 64 times its
// length; blocks past the chunk's last are never set. It is not safe for
// concurrent changes.
type Bitmap []uint64

// NewBitmap returns an empty set for n blocks.
func NewBitmap(n int) Bitmap { return make(Bitmap, (n+63)/64) }

// Has reports whether block i is in the set.
func (b Bitmap) Has(i int) bool { return b[i>>6]&(1<<(i&63)) != 0 }

// Set adds the blocks [first, end).
func (b Bitmap) Set(first, end int) {
	for w, m := range masks(first, end) {
		b[w] |= m
	}
}

// Clear removes the blocks [first, end).
func (b Bitmap) Clear(first, end int) {
	for w, m := range masks(first, end) {
		b[w] &^= m
	}
}

// HasAll reports whether all the blocks [first, end) are in the set.
func (b Bitmap) HasAll(first, end int) bool {
	for w, m := range masks(first, end) {
		if b[w]&m != m {
			return false
		}
	}
	return true
}

// HasAny reports whether one of the blocks [first, end) is in the set.
func (b Bitmap) HasAny(first, end int) bool {
	for w, m := range masks(first, end) {
		if b[w]&m != 0 {
			return true
		}
	}
	return false
}

// Count returns the number of blocks in the set.
func (b Bitmap) Count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// Empty reports whether the set has no block.
func (b Bitmap) Empty() bool {
	for _, w := range b {
		if w != 0 {
			return false
		}
	}
	return true
}

// Run returns the first run of set blocks at or after from and before end: [first, last). first equals
// end if there is none.
func (b Bitmap) Run(from, end int) (first, last int) {
	first = b.next(from, end, true)
	return first, b.next(first, end, false)
}

// next returns the first block from..end-1 whose bit is want, else end.
func (b Bitmap) next(from, end int, want bool) int {
	for i := from; i < end; {
		w := b[i>>6]
		if !want {
			w = ^w
		}
		if w >>= i & 63; w != 0 {
			return min(i+bits.TrailingZeros64(w), end)
		}
		i = (i | 63) + 1
	}
	return end
}

// Clone returns a copy.
func (b Bitmap) Clone() Bitmap { return append(Bitmap(nil), b...) }

// masks yields the words that [first, end) touches, each with its bits.
func masks(first, end int) func(yield func(int, uint64) bool) {
	return func(yield func(int, uint64) bool) {
		for first < end {
			w, lo := first>>6, first&63
			hi := min(64, lo+end-first)
			if !yield(w, ^uint64(0)>>(64-(hi-lo))<<lo) {
				return
			}
			first += hi - lo
		}
	}
}

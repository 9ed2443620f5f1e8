package chunk_test

import (
	"testing"

	"skerry/chunk"
)

// set is what a Bitmap must be like.
type set map[int]bool

func (s set) count(first, end int) (n int) {
	for i := first; i < end; i++ {
		if s[i] {
			n++
		}
	}
	return n
}

// run is Bitmap.Run, block by block.
func (s set) run(from, end int) (first, last int) {
	for first = from; first < end && !s[first]; first++ {
	}
	for last = first; last < end && s[last]; last++ {
	}
	return first, last
}

func TestBitmapAgreesWithASet(t *testing.T) {
	rng := random(t)
	for _, blocks := range []int{1, 16, 63, 64, 65, 128, 1000, 1024, chunk.MaxBlocks} {
		b, s := chunk.NewBitmap(blocks), set{}
		bits := 64 * len(b)
		if bits < blocks || bits >= blocks+64 || !b.Empty() {
			t.Fatalf("%d blocks: %d bits", blocks, bits)
		}
		for range 300 {
			first := rng.IntN(blocks + 1)
			end := first + rng.IntN(blocks-first+1)
			if rng.IntN(2) == 0 {
				end = min(end, first+70)
			}
			switch rng.IntN(5) {
			case 0, 1:
				b.Set(first, end)
				for i := first; i < end; i++ {
					s[i] = true
				}
			case 2:
				b.Clear(first, end)
				for i := first; i < end; i++ {
					delete(s, i)
				}
			case 3:
				was := b
				b = b.Clone()
				was.Set(0, blocks) // the copy is none of its business
			}
			n := s.count(first, end)
			if b.HasAll(first, end) != (n == end-first) || b.HasAny(first, end) != (n > 0) {
				t.Fatalf("%d blocks: [%d, %d) has %d: all %v, any %v", blocks, first, end, n, b.HasAll(first, end), b.HasAny(first, end))
			}
			if b.Count() != len(s) || b.Empty() != (len(s) == 0) {
				t.Fatalf("%d blocks: count %d of %d, empty %v", blocks, b.Count(), len(s), b.Empty())
			}
			lo, hi := b.Run(first, end)
			if wantLo, wantHi := s.run(first, end); lo != wantLo || hi != wantHi {
				t.Fatalf("%d blocks: run from %d to %d is [%d, %d), want [%d, %d)", blocks, first, end, lo, hi, wantLo, wantHi)
			}
		}
		for i := range bits {
			if b.Has(i) != s[i] {
				t.Fatalf("%d blocks: block %d: %v", blocks, i, b.Has(i))
			}
		}
	}
}

func TestCloneOfNoBitmapIsNone(t *testing.T) {
	if c := chunk.Bitmap(nil).Clone(); c != nil {
		t.Errorf("clone %v", c)
	}
	if !chunk.Bitmap(nil).Empty() || chunk.Bitmap(nil).Count() != 0 {
		t.Error("no bitmap is not empty")
	}
}

func TestBitmapsAllocateOnlyWhenMade(t *testing.T) {
	b := chunk.NewBitmap(chunk.MaxBlocks)
	allocs := testing.AllocsPerRun(100, func() {
		b.Set(3, 7000)
		b.Clear(70, 80)
		if first, last := b.Run(0, chunk.MaxBlocks); first != 3 || last != 70 || b.HasAll(3, 71) || !b.HasAny(79, 81) {
			t.Error("wrong blocks")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkRun(b *testing.B) {
	m := chunk.NewBitmap(chunk.DefaultSize / chunk.BlockSize)
	m.Set(500, 600)
	b.ReportAllocs()
	for b.Loop() {
		if first, last := m.Run(0, 1024); first != 500 || last != 600 {
			b.Fatal(first, last)
		}
	}
}

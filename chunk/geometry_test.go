package chunk_test

import (
	"math"
	"testing"

	"skerry/chunk"
)

func geometry(t testing.TB, size int64) chunk.Geometry {
	t.Helper()
	g, err := chunk.NewGeometry(size)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// eachSize runs a test for each chunk size that there is.
func eachSize(t *testing.T, test func(t *testing.T, size int64, g chunk.Geometry)) {
	for size := int64(chunk.MinSize); size <= chunk.MaxSize; size *= 2 {
		test(t, size, geometry(t, size))
	}
}

func TestGeometryRefusesOtherSizes(t *testing.T) {
	sizes := []int64{math.MinInt64, -chunk.DefaultSize, -1, 0, 1, 512, 4096, math.MaxInt64, 1 << 62}
	for size := int64(chunk.MinSize); size <= chunk.MaxSize; size *= 2 {
		sizes = append(sizes, size-1, size+1, size/2*3)
	}
	sizes = append(sizes, chunk.MinSize/2, chunk.MaxSize*2)
	for _, size := range sizes {
		if _, err := chunk.NewGeometry(size); err == nil {
			t.Errorf("size %d is accepted", size)
		}
	}
}

func TestGeometrySaysItsSizes(t *testing.T) {
	count := 0
	eachSize(t, func(t *testing.T, size int64, g chunk.Geometry) {
		count++
		if g.Size() != size || int64(g.Blocks())*chunk.BlockSize != size {
			t.Errorf("size %d: size %d, %d blocks", size, g.Size(), g.Blocks())
		}
		if g != geometry(t, size) {
			t.Errorf("size %d: two geometries differ", size)
		}
	})
	if count != 10 || chunk.MaxBlocks != geometry(t, chunk.MaxSize).Blocks() {
		t.Errorf("%d sizes, at most %d blocks", count, chunk.MaxBlocks)
	}
}

// TestOffsetsAgreeWithDivision compares with arithmetic that needs no power of two.
func TestOffsetsAgreeWithDivision(t *testing.T) {
	rng := random(t)
	eachSize(t, func(t *testing.T, size int64, g chunk.Geometry) {
		offsets := []int64{0, 1, size - 1, size, size + 1, 4<<50 - 1, 4 << 50}
		for range 200 {
			offsets = append(offsets, rng.Int64N(4<<50), rng.Int64N(8*size), rng.Int64N(1<<20)*size+rng.Int64N(3)-1+size)
		}
		for _, off := range offsets {
			index, within := g.Index(off), g.Within(off)
			if index != uint64(off/size) || within != off%size || g.Start(index) != off-off%size {
				t.Errorf("size %d, offset %d: chunk %d at %d, which starts at %d", size, off, index, within, g.Start(index))
			}
			count := uint64(off / size)
			if off%size > 0 {
				count++
			}
			if g.Count(off) != count {
				t.Errorf("size %d: a volume of %d bytes has %d chunks, want %d", size, off, g.Count(off), count)
			}
		}
	})
}

func TestPiecesCoverARangeOnce(t *testing.T) {
	rng := random(t)
	eachSize(t, func(t *testing.T, size int64, g chunk.Geometry) {
		for range 200 {
			off, n := rng.Int64N(1<<50), 1+rng.Int64N(5*size)
			if rng.IntN(2) == 0 {
				off -= off % size
			}
			for at := off; at < off+n; {
				p := g.First(at, off+n-at)
				if p.Length <= 0 || g.Start(p.Index)+p.Off != at {
					t.Fatalf("size %d: piece %+v at %d", size, p, at)
				}
				if end := at + p.Length; end != off+n && end%size != 0 || p.Off+p.Length > size {
					t.Fatalf("size %d: piece %+v ends neither with its chunk nor with the range", size, p)
				}
				first, end := p.Blocks()
				if int64(first) != p.Off/chunk.BlockSize || int64(end-1) != (p.Off+p.Length-1)/chunk.BlockSize || end > g.Blocks() {
					t.Fatalf("size %d: piece %+v touches blocks [%d, %d)", size, p, first, end)
				}
				at += p.Length
			}
		}
	})
}

func TestPiecesOfABoundary(t *testing.T) {
	g := geometry(t, chunk.DefaultSize)
	at := int64(90<<30) - 2
	p := g.First(at, 512)
	if want := (chunk.Piece{Index: 90<<30/chunk.DefaultSize - 1, Off: chunk.DefaultSize - 2, Length: 2}); p != want {
		t.Errorf("first piece %+v, want %+v", p, want)
	}
	if first, end := p.Blocks(); first != 1023 || end != 1024 {
		t.Errorf("it touches blocks [%d, %d)", first, end)
	}
	p = g.First(at+2, 510)
	if want := (chunk.Piece{Index: 90 << 30 / chunk.DefaultSize, Length: 510}); p != want {
		t.Errorf("second piece %+v, want %+v", p, want)
	}
	if first, end := p.Blocks(); first != 0 || end != 1 {
		t.Errorf("it touches blocks [%d, %d)", first, end)
	}
}

package volume_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"skerry/mapper"
	"skerry/volume"
)

// TestExtentsAcrossAbsentPages compares the extents of a volume, most pages of which are absent, with its content.
func TestExtentsAcrossAbsentPages(t *testing.T) {
	const chunkSize, size = 64 << 10, 9*mapper.PageChunks*(64<<10) + 3*(64<<10) + 512
	const page = mapper.PageChunks * chunkSize
	w := newWorld(t, size, chunkSize)
	rng := rand.New(rand.NewPCG(4, 4))
	is, zeros := make([]byte, size), make([]byte, 3*page)
	check := func(when string) {
		t.Helper()
		for range 50 {
			off := rng.Int64N(size)
			n := min(1+rng.Int64N(3*page), size-off)
			at := off
			must(t, w.dev.Extents(t.Context(), off, n, func(e volume.Extent) bool {
				if e.Offset != at || e.Length <= 0 {
					t.Fatalf("%s: %d bytes from %d on: %+v, want it at %d", when, n, off, e, at)
				}
				part := is[e.Offset : e.Offset+e.Length]
				if zero := e.Flags&volume.Zero != 0; zero && !bytes.Equal(part, zeros[:len(part)]) {
					t.Fatalf("%s: %+v is not zeros", when, e)
				}
				at += e.Length
				return true
			}))
			if at != off+n {
				t.Fatalf("%s: %d bytes from %d on end at %d", when, n, off, at)
			}
		}
	}
	check("empty")
	for _, off := range []int64{page - 512, 4*page + 5*chunkSize, 5 * page, size - 512} {
		p := pattern(512, uint64(off))
		must(t, w.dev.WriteAt(t.Context(), p, off))
		copy(is[off:], p)
	}
	check("written")
	must(t, w.close())
	w.reopen()
	check("opened again")
	end, zero := int64(0), int64(0)
	must(t, w.dev.Extents(t.Context(), 0, size, func(e volume.Extent) bool {
		if end = e.Offset + e.Length; e.Flags&volume.Zero != 0 {
			zero += e.Length
		}
		return true
	}))
	if end != size || zero != size-3*4096-512 {
		t.Errorf("they end at %d of %d, and %d bytes are zeros", end, size, zero)
	}
}

// TestExtentsOfNothing: what has no map page is not looked at chunk by chunk, whatever its size.
func TestExtentsOfNothing(t *testing.T) {
	const size = mapper.MaxVolumeSize
	w := newWorld(t, size, 4<<20)
	var got []volume.Extent
	allocs := testing.AllocsPerRun(1, func() {
		got = nil
		must(t, w.dev.Extents(context.Background(), 512, size-512, func(e volume.Extent) bool {
			got = append(got, e)
			return true
		}))
	})
	if want := (volume.Extent{Offset: 512, Length: size - 512, Flags: volume.Zero | volume.Hole}); len(got) != 1 || got[0] != want {
		t.Errorf("extents %+v, want %+v", got, want)
	}
	if allocs > 50 {
		t.Errorf("%v allocations", allocs)
	}
}

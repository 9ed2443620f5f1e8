package volume_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"skerry/drivers/mem"
	"skerry/volume"
)

// TestMergeKeepsContent: a chunk that a snapshot follows each write of gets more and more layers; merging them changes neither the
// volume nor a snapshot, also through a crash.
func TestMergeKeepsContent(t *testing.T) {
	const size = 256 << 10
	w := newWorld(t, size, 64<<10)
	rng := rand.New(rand.NewPCG(1, 1))
	m := newModel(size)
	for i := range 3 * volume.MaxDepth {
		off := rng.Int64N(64<<10-6000) + 3
		p := fill(rng, 1+rng.IntN(6000))
		m.write(p, off)
		if err := w.dev.WriteAt(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("s", i)
		if _, err := w.dev.Snapshot(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		m.snapshots[name] = append([]byte(nil), m.now...)
		depth, err := w.dev.Depth(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if depth > volume.MaxDepth {
			t.Fatalf("%d layers", depth)
		}
		if i%40 == 39 {
			if err := w.dev.Merge(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if depth, err := w.dev.Depth(t.Context(), 0); err != nil || depth > volume.MergeDepth {
				t.Fatalf("%d layers after a merge, %v", depth, err)
			}
			if i%80 == 79 {
				w.kill()
			} else {
				w.crash(mem.KeepNone)
			}
			m.flushed() // a snapshot made all of it durable
		}
		if err := m.same(content(t, w.dev)); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if err := m.sameSnapshots(w.snapshots()); err != nil {
		t.Error(err)
	}
}

// TestDiscardsOfSharedChunksStayFlat: zeros that are recorded piece by piece share a layer.
func TestDiscardsOfSharedChunksStayFlat(t *testing.T) {
	const size = 64 << 10
	w := newWorld(t, size, size)
	p := fill(rand.New(rand.NewPCG(2, 2)), size)
	if err := w.dev.WriteAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dev.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += 8192 {
		if err := w.dev.Discard(t.Context(), off, 4096); err != nil {
			t.Fatal(err)
		}
		clear(p[off : off+4096])
	}
	if depth, err := w.dev.Depth(t.Context(), 0); err != nil || depth != 2 {
		t.Errorf("%d layers, want the zeros and the shared one; %v", depth, err)
	}
	if got := content(t, w.dev); string(got) != string(p) {
		t.Error("content is wrong")
	}
}

package collect_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// TestCollectionBesideWrites collects and checks a volume again and again while it is being written, and while snapshots and
// clones of it come and go.
func TestCollectionBesideWrites(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := newStorage(t)
	p, q := start(t, b, 1), start(t, b, 1)
	p.create("vm1", mib)
	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)

	want := make([]byte, mib)
	var mu sync.Mutex // orders writes and pictures of want
	write := func(rng *rand.Rand) {
		n := (1 + rng.Int64N(24)) * chunk.BlockSize / 2
		off := rng.Int64N((mib-n)/512) * 512
		data := bytes.Repeat([]byte{byte(rng.IntN(256))}, int(n))
		mu.Lock()
		defer mu.Unlock()
		if err := d.WriteAt(t.Context(), data, off); err != nil {
			t.Error(err)
		}
		copy(want[off:], data)
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i := range uint64(2) {
		writers.Go(func() {
			for rng := rand.New(rand.NewPCG(seed, i)); ; {
				select {
				case <-stop:
					return
				default:
					write(rng)
				}
			}
		})
	}
	same := func(name string, picture []byte) {
		t.Helper()
		r, err := p.OpenSnapshot(t.Context(), ref(t, name))
		p.ok(err)
		got := make([]byte, mib)
		p.ok(r.ReadAt(t.Context(), got, 0))
		p.ok(r.Close(t.Context()))
		if !bytes.Equal(got, picture) {
			t.Fatalf("%s is not what it was", name)
		}
	}
	pictures := make(map[string][]byte)
	for i := range 25 {
		name := fmt.Sprintf("vm1@s%d", i)
		mu.Lock()
		p.snapshot(name)
		pictures[name] = bytes.Clone(want)
		mu.Unlock()
		p.clone(name, "clone")
		p.collect()
		r, err := collect.Check(t.Context(), q.Pool, collect.CheckOptions{})
		q.ok(err)
		if r.Damaged() {
			t.Fatalf("damaged: %+v", r.Problems)
		}
		p.remove("clone")
		if old := fmt.Sprintf("vm1@s%d", i-3); i >= 3 {
			same(old, pictures[old])
			p.remove(old)
			delete(pictures, old)
		}
	}
	close(stop)
	writers.Wait()
	p.collect()
	got := make([]byte, mib)
	p.ok(d.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, want) {
		t.Fatal("the volume is not what was written")
	}
	for name, picture := range pictures {
		same(name, picture)
	}
	p.ok(d.Close(t.Context()))
	p.collect()
	p.clean()
	_, err = p.Remove(t.Context(), catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{Snapshots: true})
	p.ok(err)
	p.collect()
	if left := objects(t, b, "v"); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

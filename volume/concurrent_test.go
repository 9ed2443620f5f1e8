package volume_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
)

// objects counts the data objects of the volume.
func (w *world) objects() int {
	w.t.Helper()
	n := 0
	err := w.storage.List(w.t.Context(), chunk.GroupName(w.id, chunk.Data), func(drivers.Info) error { n++; return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestR11IdenticalFirstWrites: many concurrent first writes to one shared chunk make one object.
func TestR11IdenticalFirstWrites(t *testing.T) {
	w := newWorld(t, 1<<20, 1<<20)
	base := fill(rand.New(rand.NewPCG(1, 1)), 1<<20)
	if err := w.dev.WriteAt(t.Context(), base, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dev.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	data := fill(rand.New(rand.NewPCG(1, 2)), 64<<10)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			p := data[i%16*4096:][:4096]
			if err := await(w.dev, &volume.Request{Kind: volume.Write, Offset: int64(i % 16 * 4096), Length: 4096, Data: p}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.objects(); n != 2 {
		t.Errorf("%d objects, want the snapshot's and one more", n)
	}
	copy(base, data)
	if !bytes.Equal(content(t, w.dev), base) {
		t.Error("data is missing")
	}
}

// TestConcurrentWritersThroughCrashes: writers with stripes of their own, flushes, snapshots and cuts run at once; then the power fails or
// the process is killed. Each writer finds what it may.
func TestConcurrentWritersThroughCrashes(t *testing.T) {
	const (
		stripe  = 3 * 512 // not a multiple of a block
		writers = 16
		size    = 1 << 20
	)
	w := newWorld(t, size, 64<<10)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 5))
	models := make([]*model, writers)
	for i := range models {
		models[i] = newModel(size)
	}
	for round := range 12 {
		stop := make(chan struct{})
		var wg, others sync.WaitGroup
		seeds := rng.Uint64()
		for i, m := range models {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seeds, uint64(i)))
				for range 120 {
					// Stripes of one writer are writers*stripe apart.
					at := int64(rng.IntN(size/(writers*stripe)))*writers*stripe + int64(i)*stripe
					n := int64(1+rng.IntN(3)) * 512
					p := fill(rng, int(n))
					r := &volume.Request{Kind: volume.Write, Offset: at, Length: n, Data: p}
					switch rng.IntN(10) {
					case 0:
						r.Kind, p = volume.Discard, make([]byte, n)
					case 1:
						r.Flags = volume.FUA
					}
					m.write(p, at)
					if err := await(w.dev, r); err != nil {
						t.Errorf("round %d: %v", round, err)
						return
					}
					if rng.IntN(20) == 0 {
						if err := await(w.dev, &volume.Request{Kind: volume.Flush}); err != nil {
							t.Errorf("round %d: flush: %v", round, err)
							return
						}
						m.flushed()
					}
				}
			})
		}
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				var err error
				if i%3 == 0 {
					_, err = w.dev.Snapshot(t.Context(), "")
				} else {
					_, err = w.dev.Cut(t.Context())
				}
				if err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
			}
		})
		wg.Wait()
		close(stop)
		others.Wait()
		if t.Failed() {
			return
		}
		kill := round%2 == 0
		if kill {
			w.kill()
		} else {
			w.crash(mem.KeepRandom(rng))
		}
		got := content(t, w.dev)
		for i, m := range models {
			// Of the others' stripes this model knows nothing.
			mine := append([]byte(nil), m.now...)
			for at := int64(i) * stripe; at < size; at += writers * stripe {
				copy(mine[at:min(at+stripe, size)], got[at:])
			}
			if kill && !bytes.Equal(mine, m.now) {
				t.Fatalf("round %d: writer %d lost what was acknowledged", round, i)
			}
			if err := m.survive(mine); err != nil {
				t.Fatalf("round %d: writer %d: %v", round, i, err)
			}
		}
	}
}

// TestB1StuckStorage: requests, barriers and Close end at their deadlines though the storage never answers; buffers are
// released only when it does.
func TestB1StuckStorage(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	w.die()
	w.options.Deadline = 50 * time.Millisecond
	w.storage = w.storage.Kill()
	w.reopen()
	release := make(chan struct{})
	w.faults.SetInline(false)
	w.faults.SetHook(faulty.OnKind(faulty.Delay(release), drivers.OpWrite))
	r := &volume.Request{Kind: volume.Write, Length: 4096, Data: make([]byte, 4096)}
	end := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
	r.Done = end
	if w.dev.Submit(r) {
		t.Fatalf("done at once: %v", r.Err)
	}
	if err := <-end.answered; !errors.Is(err, drivers.ErrUnavailable) {
		t.Errorf("answered with %v", err)
	}
	select {
	case <-end.released:
		t.Error("released while the storage holds the buffer")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.dev.Snapshot(ctx, "s"); !errors.Is(err, drivers.ErrUnavailable) {
		t.Errorf("snapshot: %v", err)
	}
	if err := w.dev.ReadAt(t.Context(), make([]byte, 512), 1<<19); err != nil {
		t.Errorf("reads of other chunks: %v", err)
	}
	dev := w.dev
	w.dev = nil
	if err := dev.Close(ctx); err == nil {
		t.Error("close succeeded")
	}
	close(release)
	<-end.released
}

// TestR14FlushCounts: a flush of an empty volume succeeds; writes before a flush survive a power loss.
func TestR14FlushCounts(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	if err := w.dev.Flush(t.Context()); err != nil {
		t.Fatalf("flush of an empty volume: %v", err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	m := newModel(1 << 20)
	for i := range int64(19) {
		if i == 13 {
			if err := w.dev.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.flushed()
		}
		p := fill(rng, 4096)
		m.write(p, i*50000)
		if err := w.dev.WriteAt(t.Context(), p, i*50000); err != nil {
			t.Fatal(err)
		}
	}
	w.crash(mem.KeepNone)
	if err := m.survive(content(t, w.dev)); err != nil {
		t.Error(err)
	}
}

// TestR10UnalignedAcrossChunks: a write across the border of two chunks near the end of a large volume survives a restart; one
// across the end fails and changes nothing.
func TestR10UnalignedAcrossChunks(t *testing.T) {
	const size = 90<<30 + 4<<20
	w := newWorld(t, size, 4<<20)
	p := fill(rand.New(rand.NewPCG(1, 9)), 512)
	if err := w.dev.WriteAt(t.Context(), p, 90<<30-2); err != nil {
		t.Fatal(err)
	}
	if err := w.dev.WriteAt(t.Context(), p, size-511); !errors.Is(err, volume.ErrOutOfRange) {
		t.Errorf("across the end: %v", err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	got := make([]byte, 512+8)
	if err := w.dev.ReadAt(t.Context(), got, 90<<30-6); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[4:516], p) || !bytes.Equal(got[:4], make([]byte, 4)) || !bytes.Equal(got[516:], make([]byte, 4)) {
		t.Error("data or its neighbours are wrong after a restart")
	}
	tail := make([]byte, 512)
	if err := w.dev.ReadAt(t.Context(), tail, size-512); err != nil || !bytes.Equal(tail, make([]byte, 512)) {
		t.Errorf("the tail changed, %v", err)
	}
}

// TestDiscardBesideAWrite: all data of an object is discarded while a write to another block of it is under way. The
// object stays, and what was written.
func TestDiscardBesideAWrite(t *testing.T) {
	w := newWorld(t, 64<<10, 64<<10)
	p := fill(rand.New(rand.NewPCG(1, 1)), 4096)
	if err := w.dev.WriteAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	writing, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpWrite && c.Off == 8192 && c.Length == 4096 {
			once.Do(func() { close(writing) })
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.dev.WriteAt(context.Background(), p, 8192); err != nil {
			t.Error(err)
		}
	})
	<-writing
	if err := w.dev.Discard(t.Context(), 0, 4096); err != nil {
		t.Fatal(err)
	}
	close(release)
	wg.Wait()
	w.faults.SetHook(nil)
	for range 2 {
		if _, err := w.dev.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 64<<10)
		copy(want[8192:], p)
		if !bytes.Equal(content(t, w.dev), want) {
			t.Fatal("content is wrong")
		}
	}
}

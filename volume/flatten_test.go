package volume_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/mapper"
	"skerry/volume"
)

// clone takes a snapshot of the volume, closes it and goes on with a clone of the snapshot, of size bytes.
func (w *world) clone(size int64) {
	w.t.Helper()
	s, err := w.dev.Snapshot(w.t.Context(), "")
	must(w.t, err)
	must(w.t, w.dev.Close(w.t.Context()))
	w.dev = nil
	w.id, w.size = chunk.NewVolumeID(), size
	root := &mapper.Root{
		Volume: w.id, State: mapper.Live, Name: "clone", Size: size, Geometry: w.geom,
		Parent: mapper.Parent{Volume: s.Volume, Snapshot: s.Serial}, Owners: append([]chunk.VolumeID{w.id}, s.Owners...), Source: []byte("somewhere"),
	}
	for _, ref := range s.Pages {
		ref.Owner++
		root.Pages = append(root.Pages, ref)
	}
	lease, err := w.holder.Create(w.t.Context(), root)
	must(w.t, err)
	w.use(lease)
}

// alone fails the test if the volume's stored map names what is another's.
func (w *world) alone() {
	w.t.Helper()
	root := w.dev.Root()
	if len(root.Owners) != 1 || root.Source != nil {
		w.t.Errorf("owners %v, source %q", root.Owners, root.Source)
	}
	c := w.engine.Client(drivers.LaneMeta, 0, nil)
	for _, ref := range root.Pages {
		if ref.Owner != 0 {
			w.t.Errorf("page %d is another's", ref.Number)
			continue
		}
		b, err := c.Load(w.t.Context(), chunk.SerialName(w.id, chunk.Pages, ref.Serial))
		must(w.t, err)
		must(w.t, mapper.EachLayer(b, w.id, ref, w.geom, func(l mapper.LayerRef) error {
			if l.Owner != w.id {
				w.t.Errorf("chunk %d has a layer of another", l.Chunk)
			}
			return nil
		}))
	}
}

// seeded returns a source of random numbers, from the seed of the random tests.
func seeded(t *testing.T) *rand.Rand {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// cloned returns the clone of a volume with data in some chunks, and the model of the clone.
func cloned(t *testing.T, seed uint64) (*world, *model) {
	const chunkSize, size = 64 << 10, 8 * 64 << 10
	w := newWorld(t, size-512, chunkSize)
	rng := rand.New(rand.NewPCG(seed, 9))
	m := newModel(size + chunkSize)
	write := func(off, n int64) {
		p := fill(rng, int(n))
		copy(m.now[off:], p)
		must(t, w.dev.WriteAt(t.Context(), p, off))
	}
	write(0, chunkSize)
	write(chunkSize+4096, 12<<10)
	write(3*chunkSize, chunkSize)
	write(size-512-5000, 5000)
	_, err := w.dev.Snapshot(t.Context(), "")
	must(t, err)
	write(8192, 3000) // a second layer
	copy(m.now[3*chunkSize:], make([]byte, 8192))
	must(t, w.dev.Discard(t.Context(), 3*chunkSize, 8192))
	must(t, w.dev.WriteAt(t.Context(), make([]byte, chunkSize), 5*chunkSize)) // data that is zero
	w.clone(size + chunkSize)
	write(4096, 700)
	write(3*chunkSize+20<<10, 9000)
	return w, m
}

func TestFlatten(t *testing.T) {
	w, m := cloned(t, 1)
	var reports [][2]int64
	must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{Progress: func(done, total int64) { reports = append(reports, [2]int64{done, total}) }}))
	must(t, m.same(content(t, w.dev)))
	w.alone()
	// Chunk 0 but for a block, 3 blocks of 1, chunk 3 but for 2+3 blocks, chunk 5, and 2 blocks of the last.
	const total = (15 + 3 + 11 + 16 + 2) * 4096
	if first, last := reports[0], reports[len(reports)-1]; first != [2]int64{0, total} || last != [2]int64{total, total} {
		t.Errorf("progress %v", reports)
	}
	for i := 1; i < len(reports); i++ {
		if reports[i][0] < reports[i-1][0] {
			t.Errorf("progress goes back: %v", reports)
		}
	}
	depth, err := w.dev.Depth(t.Context(), 5)
	if must(t, err); depth != 0 {
		t.Errorf("zeros take %d layers", depth)
	}
	// What the parent had is not needed any more.
	c := w.engine.Client(drivers.LaneMeta, 0, nil)
	must(t, c.List(t.Context(), chunk.VolumesGroup(), func(i drivers.Info) error {
		if id, _, ok := chunk.ParseVolume(i.Name); ok && id != w.id {
			return c.Unlink(t.Context(), i.Name)
		}
		return nil
	}))
	w.crash(mem.KeepNone)
	must(t, m.same(content(t, w.dev)))
	reports = nil
	must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{Progress: func(done, total int64) { reports = append(reports, [2]int64{done, total}) }}))
	if last := reports[len(reports)-1]; last != [2]int64{} {
		t.Errorf("there was something left: %v", reports)
	}
}

// TestFlattenKeepsOwnSnapshots: layers that the volume shares with its own snapshots are not copied, and the snapshots stay as they are.
func TestFlattenKeepsOwnSnapshots(t *testing.T) {
	w, m := cloned(t, 2)
	_, err := w.dev.Snapshot(t.Context(), "mine")
	must(t, err)
	m.snapshots["mine"] = bytes.Clone(m.now)
	written := w.dev.Stats().WrittenBytes
	must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{}))
	w.alone()
	must(t, m.same(content(t, w.dev)))
	must(t, m.sameSnapshots(w.snapshots()))
	if n := w.dev.Stats().WrittenBytes - written; n != 0 {
		t.Errorf("%d bytes count as written by guests", n)
	}
	if w.dev.Root().Parent == (mapper.Parent{}) {
		t.Error("the parent, which a snapshot needs, is forgotten")
	}
	for index, want := range map[uint64]int{0: 2, 1: 1, 3: 2} { // the own layer of before, and the copy
		if depth, err := w.dev.Depth(t.Context(), index); err != nil || depth != want {
			t.Errorf("chunk %d has %d layers, want %d; %v", index, depth, want, err)
		}
	}
}

// TestFlattenGoesOn: what was copied before flatten was given up, at any operation of the storage, is not copied again.
func TestFlattenGoesOn(t *testing.T) {
	var left []int64
	for k := int64(1); ; k++ {
		w, m := cloned(t, 3)
		ctx, cancel := context.WithCancelCause(t.Context())
		errEnough := errors.New("enough")
		var calls atomic.Int64
		w.faults.SetHook(func(faulty.Call) faulty.Action {
			if calls.Add(1) == k {
				cancel(errEnough)
			}
			return faulty.Pass()
		})
		err := w.dev.Flatten(ctx, volume.FlattenOptions{})
		w.faults.SetHook(nil)
		cancel(nil)
		must(t, w.dev.Err())
		must(t, m.same(content(t, w.dev)))
		most := int64(0)
		must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{Progress: func(_, total int64) { most = max(most, total) }}))
		left = append(left, most)
		must(t, m.same(content(t, w.dev)))
		w.alone()
		must(t, w.close())
		if err == nil {
			break
		}
	}
	some := func(n int64) bool { return n > 0 && n < left[0] }
	if left[0] == 0 || left[len(left)-1] != 0 || !slices.ContainsFunc(left, some) {
		t.Errorf("bytes left after each operation: %v", left)
	}
}

// TestFlattenHidesUnknownOutcomes: a copy that may still arrive does not change what is written later, in this grant or the next.
func TestFlattenHidesUnknownOutcomes(t *testing.T) {
	for k := int64(1); ; k++ {
		w, m := cloned(t, 4)
		var calls atomic.Int64
		w.faults.SetHook(func(c faulty.Call) faulty.Action {
			if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") && calls.Add(1) == k {
				return faulty.Late()
			}
			return faulty.Pass()
		})
		faults := w.faults
		must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{}))
		faults.SetHook(nil)
		w.alone()
		if k%2 == 0 {
			must(t, w.close())
			w.reopen()
		}
		for off := int64(0); off < int64(len(m.now)); off += 64 << 10 {
			p := pattern(64<<10, uint64(off)+5)
			copy(m.now[off:], p)
			must(t, w.dev.WriteAt(t.Context(), p, off))
		}
		if err := faults.Deliver(t.Context()); err != nil && !errors.Is(err, drivers.ErrNotFound) && !errors.Is(err, drivers.ErrClosed) {
			t.Fatal(err)
		}
		must(t, m.same(content(t, w.dev)))
		w.kill()
		must(t, m.same(content(t, w.dev)))
		must(t, w.close())
		if calls.Load() < k {
			return
		}
	}
}

// TestFlattenBesideWrites: guests write, discard, flush and take snapshots while a volume is flattened.
func TestFlattenBesideWrites(t *testing.T) {
	w, m := cloned(t, 6)
	rng := seeded(t)
	done := make(chan error, 1)
	go func() { done <- w.dev.Flatten(context.Background(), volume.FlattenOptions{}) }()
	for i, ended := 0, false; !ended || i < 50; i++ {
		select {
		case err := <-done:
			must(t, err)
			ended = true
		default:
		}
		off := rng.Int64N(int64(len(m.now)) - 20000)
		n := 1 + rng.IntN(20000)
		switch rng.IntN(12) {
		case 0:
			must(t, w.dev.Flush(t.Context()))
		case 1:
			clear(m.now[off:][:n])
			must(t, w.dev.Discard(t.Context(), off, int64(n)))
		case 2:
			_, err := w.dev.Snapshot(t.Context(), "s")
			must(t, err)
		default:
			p := fill(rng, n)
			copy(m.now[off:], p)
			must(t, w.dev.WriteAt(t.Context(), p, off))
		}
	}
	w.alone()
	must(t, m.same(content(t, w.dev)))
	w.kill()
	must(t, m.same(content(t, w.dev)))
	must(t, w.close())
	w.reopen()
	must(t, m.same(content(t, w.dev)))
	w.alone()
}

// TestFlattenBesideAShrinkThatFails: what flatten takes for cut off already, and is not, is copied all the same.
func TestFlattenBesideAShrinkThatFails(t *testing.T) {
	w, m := cloned(t, 7)
	reached, release := make(chan struct{}), make(chan struct{})
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/") && hit.CompareAndSwap(false, true) {
			close(reached)
			<-release
			return faulty.Fail(drivers.ErrNoSpace)
		}
		return faulty.Pass()
	})
	resized := make(chan error, 1)
	go func() { resized <- w.dev.Resize(context.Background(), 64<<10) }()
	<-reached
	end := sync.OnceFunc(func() { close(release) })
	must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{Progress: func(done, total int64) {
		if done == total {
			end()
		}
	}}))
	if err := <-resized; !errors.Is(err, drivers.ErrNoSpace) {
		t.Fatalf("resize: %v", err)
	}
	w.alone()
	must(t, m.same(content(t, w.dev)))
	must(t, w.close())
	w.reopen()
	must(t, m.same(content(t, w.dev)))
}

func TestFlattenOfSnapshotsAndClosedVolumes(t *testing.T) {
	w, _ := cloned(t, 7)
	s, err := w.dev.Snapshot(t.Context(), "s")
	must(t, err)
	snap, err := volume.OpenSnapshot(t.Context(), volume.Config{Engine: w.engine}, s)
	must(t, err)
	if err := snap.Flatten(t.Context(), volume.FlattenOptions{}); !errors.Is(err, volume.ErrReadOnly) {
		t.Errorf("flatten of a snapshot: %v", err)
	}
	must(t, snap.Close(t.Context()))
	dev := w.dev
	must(t, w.close())
	if err := dev.Flatten(t.Context(), volume.FlattenOptions{}); !errors.Is(err, volume.ErrClosed) {
		t.Errorf("flatten of a closed volume: %v", err)
	}
}

// TestFlattenFindsDamage: an object of the parent that is missing is damage.
func TestFlattenFindsDamage(t *testing.T) {
	w, _ := cloned(t, 8)
	c := w.engine.Client(drivers.LaneMeta, 0, nil)
	must(t, c.List(t.Context(), chunk.VolumesGroup(), func(i drivers.Info) error {
		if id, index, ok := chunk.ParseVolume(i.Name); ok && id != w.id && index == chunk.Data {
			return c.Unlink(t.Context(), i.Name)
		}
		return nil
	}))
	if err := w.dev.Flatten(t.Context(), volume.FlattenOptions{}); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("flatten: %v", err)
	}
	must(t, w.dev.Err())
}

package volume_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
)

// TestB08ShrinkThenGrowReadsZeros: wherever a volume is cut off, what was there does not come back.
func TestB08ShrinkThenGrowReadsZeros(t *testing.T) {
	const chunkSize, size = 64 << 10, 5 * 64 << 10
	data := pattern(size, 1)
	for _, end := range []int64{512, 4096, 4096 + 512, chunkSize - 512, chunkSize, 3*chunkSize + 5*512, size - 512} {
		w := newWorld(t, size, chunkSize)
		must(t, w.dev.WriteAt(t.Context(), data, 0))
		_, err := w.dev.Snapshot(t.Context(), "s")
		must(t, err)
		p := pattern(int(min(3000, size-end+512)), 2)
		must(t, w.dev.WriteAt(t.Context(), p, end-512)) // some of it is the volume's alone
		copy(data[end-512:], p)
		must(t, w.dev.Resize(t.Context(), end))
		if n := w.dev.Size(); n != end {
			t.Fatalf("%d bytes, want %d", n, end)
		}
		if err := w.dev.WriteAt(t.Context(), data[:1], end); !errors.Is(err, volume.ErrOutOfRange) {
			t.Errorf("write beyond the end: %v", err)
		}
		if err := w.dev.ReadAt(t.Context(), make([]byte, 513), end-512); !errors.Is(err, volume.ErrOutOfRange) {
			t.Errorf("read across the end: %v", err)
		}
		want := append(bytes.Clone(data[:end]), make([]byte, 2*size-end)...)
		must(t, w.dev.Resize(t.Context(), 2*size))
		check := func(when string) {
			t.Helper()
			if got := content(t, w.dev); !bytes.Equal(got, want) {
				t.Errorf("cut off at %d, %s: content is wrong", end, when)
			}
		}
		check("at once")
		w.crash(mem.KeepNone)
		check("after power loss")
		must(t, w.close())
		w.reopen()
		check("after close and open")
		data = pattern(size, 1)
		if got := w.snapshots()["s"]; !bytes.Equal(got, data) {
			t.Error("the snapshot has changed")
		}
		must(t, w.close())
	}
}

// TestResizeKeepsWhatSnapshotsSee: a snapshot has the size and the content that the volume had.
func TestResizeKeepsWhatSnapshotsSee(t *testing.T) {
	const size = 3 * 64 << 10
	w := newWorld(t, size, 64<<10)
	m := newModel(size)
	for i, n := range []int64{size - 512, 512, 10 << 20, 65 << 10, 10<<20 + 512} {
		must(t, w.dev.Resize(t.Context(), n))
		m.resized(n)
		p := pattern(int(min(n, 70<<10)), uint64(i))
		copy(m.now[n-int64(len(p)):], p)
		must(t, w.dev.WriteAt(t.Context(), p, n-int64(len(p))))
		name := string(rune('a' + i))
		s, err := w.dev.Snapshot(t.Context(), name)
		must(t, err)
		if s.Size != n {
			t.Errorf("the snapshot has %d bytes, want %d", s.Size, n)
		}
		m.snapshots[name] = bytes.Clone(m.now)
		must(t, m.sameSnapshots(w.snapshots()))
		must(t, m.same(content(t, w.dev)))
	}
}

// TestShrinkBesideWrites: a write beyond the new end that is under way ends first, one that waits fails, and neither comes back.
func TestShrinkBesideWrites(t *testing.T) {
	const size = 4 * 64 << 10
	w := newWorld(t, size, 64<<10)
	data := pattern(64<<10, 1)
	must(t, w.dev.WriteAt(t.Context(), data, 2*64<<10))
	_, err := w.dev.Cut(t.Context())
	must(t, err)
	reached, release := make(chan struct{}), make(chan struct{})
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") && hit.CompareAndSwap(false, true) {
			close(reached)
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	under, resized, waits := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() { under <- w.dev.WriteAt(context.Background(), data, 2*64<<10) }()
	<-reached
	go func() { resized <- w.dev.Resize(context.Background(), 64<<10+512) }()
	for w.dev.Size() == size {
		runtime.Gosched()
	}
	if err := w.dev.WriteAt(t.Context(), data[:512], 64<<10+512); !errors.Is(err, volume.ErrOutOfRange) {
		t.Errorf("write beyond the new end: %v", err)
	}
	w.dev.AwaitClosedGate()
	r := &volume.Request{Kind: volume.Write, Offset: 64 << 10, Length: 512, Data: data[:512]}
	go func() { waits <- await(w.dev, r) }()
	close(release)
	must(t, <-under)
	must(t, <-resized)
	must(t, <-waits)
	must(t, w.dev.Resize(t.Context(), size))
	want := make([]byte, size)
	copy(want[64<<10:], data[:512])
	if !bytes.Equal(content(t, w.dev), want) {
		t.Error("content is wrong")
	}
	w.kill()
	if !bytes.Equal(content(t, w.dev), want) {
		t.Error("content is wrong after kill -9")
	}
}

// TestWriteThatWaitsWhileTheVolumeShrinks: a request that was accepted and meets the new end only later fails.
func TestWriteThatWaitsWhileTheVolumeShrinks(t *testing.T) {
	const size = 4 * 64 << 10
	w := newWorld(t, size, 64<<10)
	must(t, w.dev.Freeze(t.Context()))
	waits := []chan error{make(chan error, 1), make(chan error, 1), make(chan error, 1)}
	for i, r := range []*volume.Request{
		{Kind: volume.Write, Offset: 64 << 10, Length: 4096, Data: pattern(4096, 1)},
		{Kind: volume.Discard, Offset: 64<<10 - 512, Length: 8192},
		{Kind: volume.Write, Offset: 64<<10 - 4096, Length: 4096, Data: pattern(4096, 2)},
	} {
		done := waiter{answered: waits[i], released: make(chan struct{}, 1)}
		r.Done = done
		if w.dev.Submit(r) {
			t.Fatal("a write of a frozen volume was done")
		}
	}
	resized := make(chan error, 1)
	go func() { resized <- w.dev.Resize(context.Background(), 64<<10) }()
	for w.dev.Size() == size {
		runtime.Gosched()
	}
	w.dev.Thaw()
	must(t, <-resized)
	for _, c := range waits[:2] {
		if err := <-c; !errors.Is(err, volume.ErrOutOfRange) {
			t.Errorf("a request beyond the end: %v", err)
		}
	}
	must(t, <-waits[2])
	must(t, w.dev.Resize(t.Context(), size))
	want := make([]byte, size)
	copy(want[64<<10-4096:], pattern(4096, 2))
	if !bytes.Equal(content(t, w.dev), want) {
		t.Error("content is wrong")
	}
}

// TestResizeThatFails leaves the size as it was, and works when it is tried again.
func TestResizeThatFails(t *testing.T) {
	const size = 4 * 64 << 10
	for _, to := range []int64{64<<10 + 512, 64 << 20} {
		w := newWorld(t, size, 64<<10)
		data := pattern(size, 1)
		must(t, w.dev.WriteAt(t.Context(), data, 0))
		w.faults.SetHook(faulty.On(func(c faulty.Call) bool {
			return c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/")
		}, faulty.Fail(drivers.ErrNoSpace)))
		if err := w.dev.Resize(t.Context(), to); !errors.Is(err, drivers.ErrNoSpace) {
			t.Errorf("resize: %v", err)
		}
		w.faults.SetHook(nil)
		if n := w.dev.Size(); n != size {
			t.Fatalf("%d bytes", n)
		}
		got := content(t, w.dev)
		if !bytes.Equal(got[:min(to, size)], data[:min(to, size)]) || !bytes.Equal(got[min(2*64<<10, size):], data[2*64<<10:]) {
			t.Error("content is wrong")
		}
		must(t, w.dev.WriteAt(t.Context(), data, 0))
		must(t, w.dev.Resize(t.Context(), to))
		want := append(data, make([]byte, 64<<20-size)...)[:to]
		if !bytes.Equal(content(t, w.dev), want) {
			t.Error("content is wrong after a second try")
		}
	}
}

func TestResizeRefuses(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	for _, size := range []int64{0, -512, 513, 1<<20 + 1, 4<<50 + 512, 2<<40*64 + 512} {
		if err := w.dev.Resize(t.Context(), size); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("resize to %d: %v", size, err)
		}
	}
	before := w.dev.Root().Sequence
	must(t, w.dev.Resize(t.Context(), 1<<20))
	if w.dev.Root().Sequence != before {
		t.Error("a resize to the same size does something")
	}
	s, err := w.dev.Snapshot(t.Context(), "s")
	must(t, err)
	snap, err := volume.OpenSnapshot(t.Context(), volume.Config{Engine: w.engine}, s)
	must(t, err)
	if err := snap.Resize(t.Context(), 2<<20); !errors.Is(err, volume.ErrReadOnly) {
		t.Errorf("resize of a snapshot: %v", err)
	}
	must(t, snap.Close(t.Context()))
	dev := w.dev
	must(t, w.close())
	if err := dev.Resize(t.Context(), 2<<20); !errors.Is(err, volume.ErrClosed) {
		t.Errorf("resize of a closed volume: %v", err)
	}
}

// TestGrowHidesWhatLiesBeyondTheEnd: an object that was taken over whole may hold anything after the volume's end.
func TestGrowHidesWhatLiesBeyondTheEnd(t *testing.T) {
	const chunkSize = 64 << 10
	w := newWorld(t, chunkSize+4096+512, chunkSize)
	other := chunk.NewVolumeID()
	c := w.engine.Client(drivers.LaneMeta, 0, nil)
	data := pattern(chunkSize, 1)
	for i := range uint64(2) {
		name := chunk.DataName(other, i, chunk.MakeSerial(1, 1))
		must(t, c.Create(t.Context(), name))
		must(t, c.WriteAt(t.Context(), name, data, 0))
	}
	must(t, w.dev.Adopt(t.Context(), other, chunk.MakeSerial(1, 1), 0, 2))
	must(t, w.dev.Resize(t.Context(), 3*chunkSize))
	want := append(bytes.Clone(data), data[:4096+512]...)
	want = append(want, make([]byte, 3*chunkSize-len(want))...)
	if !bytes.Equal(content(t, w.dev), want) {
		t.Error("content is wrong")
	}
	must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{}))
	w.alone()
	if !bytes.Equal(content(t, w.dev), want) {
		t.Error("content is wrong after flatten")
	}
}

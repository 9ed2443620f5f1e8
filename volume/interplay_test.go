package volume_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
)

func (w *world) holdRoot(n int64) (busy, release chan struct{}) {
	busy, release = make(chan struct{}), make(chan struct{})
	var roots atomic.Int64
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/") && roots.Add(1) == n {
			close(busy)
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	return busy, release
}

// TestSupersedeWhileCutIsUnderWay: older data in the journal from before a cut that is under way is void once objects were synced.
func TestSupersedeWhileCutIsUnderWay(t *testing.T) {
	w := newWorld(t, 4<<20, 1<<20)
	must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
	must(t, w.dev.Flush(t.Context())) // the journal has it
	busy, release := w.holdRoot(1)
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = w.dev.Cut(context.Background()) }()
	<-busy
	newer := pattern(1<<20, 2)
	must(t, w.dev.WriteAt(t.Context(), newer, 0))
	must(t, w.dev.Flush(t.Context())) // syncs objects
	storage := w.storage.Crash(mem.KeepNone)
	close(release)
	<-ended
	w.powerOn(storage)
	if !bytes.Equal(content(t, w.dev)[:1<<20], newer) {
		t.Error("older data of the journal came back over what was flushed")
	}
}

// TestFlushCoversFollowedJournal: what the journal held before a larger one follows it is durable when a flush covers it.
func TestFlushCoversFollowedJournal(t *testing.T) {
	w := newWorld(t, 64<<20, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.JournalSize, w.options.JournalLimit = 64<<10, 1<<20
	w.reopen()
	busy, release := w.holdRoot(3) // first journal, second journal, the cut
	var n atomic.Int64
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		// The last write may wait for the cut.
		for i := int64(0); w.dev.WriteAt(context.Background(), pattern(4096, uint64(i)), i*64<<10) == nil; i++ {
			n.Store(i + 1)
			select {
			case <-busy:
				return
			default:
			}
		}
	}()
	<-busy
	flushed := n.Load()
	must(t, w.dev.Flush(t.Context()))
	storage := w.storage.Crash(mem.KeepNone)
	close(release)
	<-stopped
	w.powerOn(storage)
	got := content(t, w.dev)
	for i := range flushed {
		if !bytes.Equal(got[i*64<<10:][:4096], pattern(4096, uint64(i))) {
			t.Fatalf("flushed write %d of %d is lost", i, flushed)
		}
	}
}

// TestSnapshotsAmongWritersAreStable: snapshots taken while many write do not change afterwards.
func TestSnapshotsAmongWritersAreStable(t *testing.T) {
	const size = 8 << 20
	w := newWorld(t, size, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.JournalSize = 4 << 20
	w.reopen()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range int64(16) {
		wg.Go(func() {
			for n := uint64(1); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				at := (i + 16*int64(n%8)) * (64 << 10)
				r := &volume.Request{Kind: volume.Write, Offset: at, Length: 4096, Data: pattern(4096, n*16+uint64(i))}
				if err := await(w.dev, r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	first := make(map[string][]byte)
	for k := range 25 {
		name := fmt.Sprint(k)
		s, err := w.dev.Snapshot(t.Context(), name)
		must(t, err)
		dev, err := volume.OpenSnapshot(t.Context(), volume.Config{Engine: w.engine}, s)
		must(t, err)
		first[name] = content(t, dev)
		must(t, dev.Close(t.Context()))
	}
	close(stop)
	wg.Wait()
	for name, got := range w.snapshots() {
		if !bytes.Equal(got, first[name]) {
			t.Errorf("snapshot %s changed", name)
		}
	}
}

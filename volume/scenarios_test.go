package volume_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
)

// calls records the calls of the storage from now on.
func (w *world) calls() func() []faulty.Call {
	var mu sync.Mutex
	var all []faulty.Call
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
		return faulty.Pass()
	})
	return func() []faulty.Call {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// TestR03UnalignedRoundTrip: a kibibyte at an odd place reads back, and changes nothing around it.
func TestR03UnalignedRoundTrip(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	p := fill(rand.New(rand.NewPCG(1, 1)), 1024)
	want := make([]byte, 1<<20)
	copy(want[64<<10-333:], p)
	if err := w.dev.WriteAt(t.Context(), p, 64<<10-333); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, w.dev), want) {
		t.Error("content is wrong")
	}
}

// TestB05DataBeforeMap: what says that a block is in an object is written after the block is, and a write that fails says nothing.
func TestB05DataBeforeMap(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	p := fill(rand.New(rand.NewPCG(1, 1)), 4096)
	if err := w.dev.WriteAt(t.Context(), p, 0); err != nil { // makes the journal
		t.Fatal(err)
	}
	calls := w.calls()
	if err := w.dev.WriteAt(t.Context(), p, 64<<10); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, c := range calls() {
		if c.Kind == drivers.OpWrite {
			_, group, _ := chunk.ParseVolume(c.Name)
			order = append(order, string(group))
		}
	}
	if strings.Join(order, " ") != "data journal" {
		t.Errorf("writes to %v, want the data, then the journal", order)
	}
	w.faults.SetHook(faulty.On(func(c faulty.Call) bool { return c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") }, faulty.Fail(errBroken)))
	if err := w.dev.WriteAt(t.Context(), p, 2*64<<10); !errors.Is(err, errBroken) {
		t.Fatalf("write: %v", err)
	}
	w.faults.SetHook(nil)
	w.kill()
	want := make([]byte, 1<<20)
	copy(want, p)
	copy(want[64<<10:], p)
	if !bytes.Equal(content(t, w.dev), want) {
		t.Error("content is wrong")
	}
}

// TestB07SnapshotsChangeNoPage: no object that a snapshot's map consists of is ever written again.
func TestB07SnapshotsChangeNoPage(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	rng := rand.New(rand.NewPCG(1, 1))
	write := func() {
		t.Helper()
		for range 20 {
			if err := w.dev.WriteAt(t.Context(), fill(rng, 4096), rng.Int64N(255)*4096); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	s, err := w.dev.Snapshot(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	pages := make(map[string][]byte)
	for _, ref := range s.Pages {
		name := chunk.SerialName(s.Owners[ref.Owner], chunk.Pages, ref.Serial)
		b, err := w.storage.Load(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		pages[name] = b
	}
	calls := w.calls()
	write()
	if _, err := w.dev.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dev.Snapshot(t.Context(), "s2"); err != nil {
		t.Fatal(err)
	}
	write()
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls() {
		if c.Kind.Mutates() && pages[c.Name] != nil {
			t.Errorf("%s", c)
		}
	}
	for name, b := range pages {
		if now, err := w.storage.Load(t.Context(), name); err != nil || !bytes.Equal(now, b) {
			t.Errorf("page %s has changed, %v", name, err)
		}
	}
	w.reopen()
}

// TestB10LocksEndWithErrors: a misaligned write locks its own chunk alone, and its failure leaves nothing locked.
func TestB10LocksEndWithErrors(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	p := fill(rand.New(rand.NewPCG(1, 1)), 5000)
	for _, off := range []int64{100, 64<<10 - 1000, 3 * 64 << 10} {
		for _, kind := range []drivers.Kind{drivers.OpCreate, drivers.OpWrite, drivers.OpRead} {
			w.faults.SetHook(faulty.On(func(c faulty.Call) bool { return c.Kind == kind && strings.Contains(c.Name, "/data/") }, faulty.Fail(errBroken)))
			err := w.dev.WriteAt(t.Context(), p, off)
			w.faults.SetHook(nil)
			if err != nil && !errors.Is(err, errBroken) {
				t.Errorf("write at %d: %v", off, err)
			}
			if err := w.dev.WriteAt(t.Context(), p, off+7); err != nil {
				t.Errorf("write after a failed %v: %v", kind, err)
			}
		}
	}
	writing, release := make(chan struct{}), make(chan struct{})
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind != drivers.OpWrite || !strings.Contains(c.Name, "/data/0/5.") {
			return faulty.Pass()
		}
		close(writing)
		return faulty.Delay(release)
	})
	var stuck sync.WaitGroup
	stuck.Go(func() {
		if err := w.dev.WriteAt(t.Context(), p, 5*64<<10+100); err != nil {
			t.Error(err)
		}
	})
	<-writing
	if err := w.dev.WriteAt(t.Context(), p, 6*64<<10+100); err != nil {
		t.Errorf("write to another chunk: %v", err)
	}
	w.faults.SetHook(nil)
	close(release)
	stuck.Wait()
}

// TestL04OnlyFlushesSync: writes sync nothing, a flush makes what it should durable, and FUA does for its own write.
func TestL04OnlyFlushesSync(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	rng := rand.New(rand.NewPCG(1, 1))
	p := fill(rng, 4096)
	if err := w.dev.WriteAt(t.Context(), p, 0); err != nil { // makes the journal
		t.Fatal(err)
	}
	calls := w.calls()
	syncs := func() (n int) {
		for _, c := range calls() {
			if c.Kind == drivers.OpSync || c.Kind == drivers.OpSyncGroup {
				n++
			}
		}
		return n
	}
	for i := range int64(10) {
		if err := w.dev.WriteAt(t.Context(), p, i*64<<10+i*4096); err != nil {
			t.Fatal(err)
		}
	}
	if n := syncs(); n != 0 {
		t.Errorf("10 writes synced %d times", n)
	}
	if err := w.dev.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := syncs(); n != 1 {
		t.Errorf("a small flush synced %d times, want the journal once", n)
	}
	if err := await(w.dev, &volume.Request{Kind: volume.Write, Flags: volume.FUA, Length: 4096, Data: p}); err != nil {
		t.Fatal(err)
	}
	before := content(t, w.dev)
	w.crash(mem.KeepNone)
	if !bytes.Equal(content(t, w.dev), before) {
		t.Error("what was flushed is lost")
	}
}

// TestL05ErrorsSayWhat: an error names the operation, the object and the cause.
func TestL05ErrorsSayWhat(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	p := make([]byte, 4096)
	if err := w.dev.WriteAt(t.Context(), p, 64<<10); err != nil {
		t.Fatal(err)
	}
	w.faults.SetHook(faulty.On(func(c faulty.Call) bool { return strings.Contains(c.Name, "/data/") }, faulty.Fail(errBroken)))
	for _, err := range []error{
		w.dev.ReadAt(t.Context(), p, 64<<10),
		w.dev.WriteAt(t.Context(), p, 64<<10),
		w.dev.WriteAt(t.Context(), p, 5*64<<10),
	} {
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), w.id.String()) {
			t.Errorf("error %v", err)
		}
	}
	w.faults.SetHook(nil)
}

// TestFreezeHoldsChangesUp: between Freeze and Thaw what is stored does not change, and all that was answered is there.
func TestFreezeHoldsChangesUp(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	rng := rand.New(rand.NewPCG(1, 1))
	p := fill(rng, 4096)
	if err := w.dev.WriteAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.dev.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &volume.Request{Kind: volume.Write, Length: 4096, Data: fill(rng, 4096)}
	end := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
	r.Done = end
	if w.dev.Submit(r) {
		t.Fatalf("a write was done while frozen: %v", r.Err)
	}
	frozen := w.storage.Crash(mem.KeepNone)
	if got := content(t, w.dev); !bytes.Equal(got[:4096], p) {
		t.Error("reads are wrong while frozen")
	}
	w.dev.Thaw()
	if err := <-end.answered; err != nil {
		t.Fatal(err)
	}
	<-end.released
	w.powerOn(frozen)
	if got := content(t, w.dev); !bytes.Equal(got[:4096], p) {
		t.Error("what was answered before the freeze is not there")
	}
}

package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

// watched is a backend that knows which objects are open and whether they were synced.
type watched struct {
	drivers.Backend
	mu      sync.Mutex
	open    map[*watchedObject]bool
	most    int // open at once
	dirty   int
	mostD   int      // dirty at once
	faults  []string // dirty objects that were closed
	opens   map[string]int
	removed map[string]bool
}

type watchedObject struct {
	drivers.Object
	w     *watched
	name  string
	dirty bool // guarded by watched.mu
}

func newWatched() *watched {
	return &watched{Backend: mem.New(mem.Options{NoInline: true}), open: map[*watchedObject]bool{}, opens: map[string]int{},
		removed: map[string]bool{}}
}

func (w *watched) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	w.mu.Lock()
	w.opens[name]++
	w.mu.Unlock()
	o, err := w.Backend.Open(ctx, name, mode)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	wo := &watchedObject{Object: o, w: w, name: name}
	w.open[wo] = true
	w.most = max(w.most, len(w.open))
	return wo, nil
}

func (w *watched) Unlink(ctx context.Context, name string) error {
	w.mu.Lock()
	w.removed[name] = true
	w.mu.Unlock()
	return w.Backend.Unlink(ctx, name)
}

func (o *watchedObject) WriteAt(p []byte, off int64) error {
	o.w.mu.Lock()
	if !o.dirty {
		o.dirty = true
		o.w.dirty++
		o.w.mostD = max(o.w.mostD, o.w.dirty)
	}
	o.w.mu.Unlock()
	return o.Object.WriteAt(p, off)
}

func (o *watchedObject) Sync() error {
	err := o.Object.Sync()
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	if o.dirty {
		o.dirty = false
		o.w.dirty--
	}
	return err
}

func (o *watchedObject) Close() error {
	o.w.mu.Lock()
	if o.dirty {
		o.w.dirty--
		if !o.w.removed[o.name] {
			o.w.faults = append(o.w.faults, o.name)
		}
	}
	delete(o.w.open, o)
	o.w.mu.Unlock()
	return o.Object.Close()
}

func TestDirtyHandlesAreSyncedNotEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		b := bedOver(t, w, drivers.Options{MaxHandles: 8, MaxDirty: 4})
		const n = 100
		for i := range n {
			b.must(b.guest.Create(b.ctx, fmt.Sprintf("g/%d", i)))
		}
		for round := range 3 {
			for i := range n {
				b.must(b.guest.WriteAt(b.ctx, fmt.Sprintf("g/%d", i), []byte{byte(i + round)}, int64(round)))
			}
		}
		p := make([]byte, 3)
		for i := range n {
			b.must(b.guest.ReadAt(b.ctx, fmt.Sprintf("g/%d", i), p, 0))
			if p[0] != byte(i) || p[2] != byte(i+2) {
				t.Errorf("object %d has %v", i, p)
			}
		}
		if s := b.engine.Stats(); s.Dirty > 4 || s.Handles > 8 {
			t.Errorf("%d handles, %d dirty", s.Handles, s.Dirty)
		}
		b.must(b.engine.Close())
		if w.most > 8 || w.mostD > 4 || len(w.faults) > 0 || len(w.open) > 0 {
			t.Errorf("%d open and %d dirty at once, closed dirty: %v, still open: %d", w.most, w.mostD, w.faults, len(w.open))
		}
	})
}

// TestDirtyBoundHoldsWhileSyncsHang: writes that would make more handles dirty wait and fail at their deadline.
func TestDirtyBoundHoldsWhileSyncsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		b := bedOver(t, w, drivers.Options{MaxHandles: 8, MaxDirty: 2})
		for i := range 4 {
			b.must(b.guest.Create(b.ctx, fmt.Sprint(i)))
		}
		release := b.stick(drivers.OpSync)
		b.must(b.guest.WriteAt(b.ctx, "0", []byte("x"), 0))
		b.must(b.guest.WriteAt(b.ctx, "1", []byte("x"), 0))
		b.is(b.guest.WriteAt(b.ctx, "2", []byte("x"), 0), drivers.ErrUnavailable)
		b.must(b.guest.WriteAt(b.ctx, "1", []byte("y"), 0)) // which is dirty already
		b.must(b.guest.ReadAt(b.ctx, "3", make([]byte, 1), 0))
		if w.mostD > 2 {
			t.Errorf("%d were dirty", w.mostD)
		}
		release()
		b.must(b.guest.WriteAt(b.ctx, "2", []byte("x"), 0))
		b.must(b.engine.Close())
	})
}

func TestManyOpensOfOneNameOpenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		b := bedOver(t, w, drivers.Options{})
		o, err := w.Backend.Open(b.ctx, "o", drivers.Create)
		b.must(err)
		b.must(o.Close())
		release := b.stick(drivers.OpOpen)
		r := newResults(200)
		for i := range 200 {
			b.engine.Submit(opOf(drivers.OpRead, drivers.Lane(i%drivers.LaneCount), "o", r))
		}
		synctest.Wait()
		release()
		<-r.done
		for _, op := range r.ops {
			b.must(op.Err)
		}
		if w.opens["o"] != 1 {
			t.Errorf("opened %d times", w.opens["o"])
		}
		b.must(b.engine.Close())
	})
}

func TestFailedOpenIsNotRemembered(t *testing.T) {
	b := newBed(t, drivers.Options{})
	b.is(b.guest.ReadAt(b.ctx, "o", nil, 0), drivers.ErrNotFound)
	o, err := b.faulty.Open(b.ctx, "o", drivers.Create) // by another process
	b.must(err)
	b.must(o.Close())
	b.must(b.guest.ReadAt(b.ctx, "o", nil, 0))
	b.is(b.meta.Create(b.ctx, "o"), drivers.ErrExists)
	b.must(b.guest.ReadAt(b.ctx, "o", nil, 0))
	b.must(b.engine.Close())
}

func TestUnlinkOfAnOpenObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		b := bedOver(t, w, drivers.Options{})
		b.must(b.guest.Create(b.ctx, "o"))
		b.must(b.guest.WriteAt(b.ctx, "o", []byte("data"), 0))
		release := b.stick(drivers.OpRead)
		r := newResults(1)
		op := opOf(drivers.OpRead, drivers.LaneGuest, "o", r)
		op.Data = make([]byte, 4)
		b.engine.Submit(op)
		synctest.Wait()
		b.must(b.meta.Unlink(b.ctx, "o"))
		if s := b.engine.Stats(); s.Handles != 1 || s.Dirty != 0 {
			t.Errorf("%d handles, %d dirty, want 1 and 0", s.Handles, s.Dirty)
		}
		b.is(b.guest.WriteAt(b.ctx, "o", []byte("x"), 0), drivers.ErrNotFound)
		b.is(b.guest.Sync(b.ctx, "o"), drivers.ErrNotFound)
		b.is(b.meta.Unlink(b.ctx, "o"), drivers.ErrNotFound)
		b.must(b.guest.Create(b.ctx, "o"))
		b.must(b.guest.WriteAt(b.ctx, "o", []byte("new!"), 0))
		release()
		<-r.done
		b.must(op.Err)
		if string(op.Data) != "data" {
			t.Errorf("read %q", op.Data)
		}
		synctest.Wait()
		if s := b.engine.Stats(); s.Handles != 1 {
			t.Errorf("%d handles, want 1", s.Handles)
		}
		b.must(b.guest.ReadAt(b.ctx, "o", op.Data, 0))
		if string(op.Data) != "new!" {
			t.Errorf("read %q", op.Data)
		}
		b.must(b.engine.Close())
	})
}

// TestUnlinkWhileOpening: the handle of an object that was removed while it was opened is not kept.
func TestUnlinkWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{})
		o, err := b.faulty.Open(b.ctx, "o", drivers.Create)
		b.must(err)
		b.must(o.Close())
		// The backend opens the object, and is slow to say so.
		opened, say := make(chan struct{}), make(chan struct{})
		b.engine.Close()
		e := drivers.NewEngine(slowOpen{b.faulty, opened, say}, drivers.Options{})
		c := e.Client(drivers.LaneGuest, 0, nil)
		read := make(chan error)
		go func() { read <- c.ReadAt(b.ctx, "o", nil, 0) }()
		<-opened
		b.must(c.WithLane(drivers.LaneMeta).Unlink(b.ctx, "o"))
		close(say)
		b.must(<-read)
		synctest.Wait()
		if n := e.Stats().Handles; n != 0 {
			t.Errorf("%d handles", n)
		}
		b.must(e.Close())
	})
}

type slowOpen struct {
	drivers.Backend
	opened, say chan struct{}
}

func (s slowOpen) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	o, err := s.Backend.Open(ctx, name, mode)
	close(s.opened)
	<-s.say
	return o, err
}

func TestReadersWaitForACreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fail := range []bool{false, true} {
			b := newBed(t, drivers.Options{})
			ch := make(chan struct{})
			b.faulty.SetHook(func(c faulty.Call) faulty.Action {
				if c.Kind != drivers.OpCreate {
					return faulty.Pass()
				}
				if fail {
					a := faulty.Fail(drivers.ErrNoSpace)
					a.Wait = ch
					return a
				}
				return faulty.Delay(ch)
			})
			created, read := make(chan error), make(chan error)
			go func() { created <- b.meta.Create(b.ctx, "o") }()
			synctest.Wait()
			go func() { read <- b.guest.ReadAt(b.ctx, "o", make([]byte, 1), 0) }()
			synctest.Wait()
			close(ch)
			if fail {
				b.is(<-created, drivers.ErrNoSpace)
				b.is(<-read, drivers.ErrNotFound)
			} else {
				b.must(<-created)
				b.must(<-read)
			}
			b.must(b.engine.Close())
		}
	})
}

func TestFailedSyncIsFinal(t *testing.T) {
	b := newBed(t, drivers.Options{})
	broken := errors.New("input/output error")
	b.must(b.guest.Create(b.ctx, "o"))
	b.must(b.guest.Create(b.ctx, "other"))
	b.must(b.guest.WriteAt(b.ctx, "o", []byte("x"), 0))
	b.faulty.SetHook(faulty.On(func(c faulty.Call) bool { return c.Kind == drivers.OpSync && c.Name == "o" }, faulty.Fail(broken)))
	b.is(b.guest.Sync(b.ctx, "o"), broken)
	b.faulty.SetHook(nil)
	calls := b.faulty.Calls()
	b.is(b.guest.Sync(b.ctx, "o"), broken)
	b.is(b.back.Sync(b.ctx, "o"), broken)
	b.must(b.guest.WriteAt(b.ctx, "o", []byte("y"), 0))
	b.is(b.guest.Sync(b.ctx, "o"), broken)
	if n := b.faulty.Calls() - calls; n != 1 { // the write
		t.Errorf("%d calls, want 1: no sync is tried again", n)
	}
	b.must(b.guest.WriteAt(b.ctx, "other", []byte("y"), 0))
	b.must(b.guest.Sync(b.ctx, "other"))
	if got := b.engine.FailedSyncs(); !slices.Equal(got, []string{"o"}) {
		t.Errorf("failed syncs %v", got)
	}
	b.must(b.meta.DropCache(b.ctx, "o")) // from here on it is what the storage has
	b.must(b.guest.WriteAt(b.ctx, "o", []byte("z"), 0))
	b.must(b.guest.Sync(b.ctx, "o"))
	if got := b.engine.FailedSyncs(); len(got) != 0 {
		t.Errorf("failed syncs %v after the cache was dropped", got)
	}
	b.must(b.engine.Close())
}

func TestFailedBackgroundSyncIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{MaxHandles: 8, MaxDirty: 2})
		broken := errors.New("input/output error")
		for i := range 20 {
			b.must(b.guest.Create(b.ctx, fmt.Sprint(i)))
		}
		b.faulty.SetHook(faulty.OnKind(faulty.Fail(broken), drivers.OpSync))
		// Nothing hangs though no handle gets clean.
		for i := range 20 {
			b.must(b.guest.WriteAt(b.ctx, fmt.Sprint(i), []byte("x"), 0))
		}
		synctest.Wait()
		b.faulty.SetHook(nil)
		failed := b.engine.FailedSyncs()
		if len(failed) < 18 {
			t.Errorf("%d failed syncs, want 18", len(failed))
		}
		for _, name := range failed {
			b.is(b.guest.Sync(b.ctx, name), broken)
		}
		b.must(b.engine.Close())
	})
}

// TestSyncCoversWhatReturnedBefore: syncs share a run only if it began after they were asked for.
func TestSyncCoversWhatReturnedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{})
		b.must(b.guest.Create(b.ctx, "o"))
		b.must(b.guest.WriteAt(b.ctx, "o", []byte("a"), 0))
		ch := make(chan struct{})
		b.faulty.SetHook(faulty.OnKind(faulty.Delay(ch), drivers.OpSync))
		calls := b.faulty.Calls()
		ended := make(chan error, 10)
		sync := func() { ended <- b.guest.Sync(b.ctx, "o") }
		go sync()
		synctest.Wait()
		b.must(b.guest.WriteAt(b.ctx, "o", []byte("b"), 0))
		for range 5 {
			go sync()
		}
		synctest.Wait()
		if n := b.faulty.Calls() - calls; n != 2 { // the first sync and the write
			t.Errorf("%d calls", n)
		}
		ch <- struct{}{}
		b.must(<-ended)
		synctest.Wait()
		if len(ended) > 0 {
			t.Error("a sync ended with one that began before it was asked for")
		}
		if s := b.engine.Stats(); s.Dirty != 1 {
			t.Errorf("%d dirty, want 1: a write came after the sync began", s.Dirty)
		}
		ch <- struct{}{}
		for range 5 {
			b.must(<-ended)
		}
		if n := b.faulty.Calls() - calls; n != 3 {
			t.Errorf("%d calls, want 3: two syncs for six", n)
		}
		if s := b.engine.Stats(); s.Dirty != 0 {
			t.Errorf("%d dirty", s.Dirty)
		}
		b.must(b.engine.Close())
	})
}

// TestSyncAfterRestart: what an earlier process wrote is synced although this engine has no open handle.
func TestSyncAfterRestart(t *testing.T) {
	m := mem.New(mem.Options{})
	o, err := m.Open(t.Context(), "o", drivers.Create)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = m.SyncGroup(t.Context(), ""), o.WriteAt([]byte("x"), 0)
	b := bedOver(t, m.Kill(), drivers.Options{})
	b.must(b.guest.ReadAt(b.ctx, "o", make([]byte, 1), 0)) // a handle that this engine never dirtied
	b.must(b.guest.Sync(b.ctx, "o"))
	if p := b.faulty.Backend.(*mem.Backend).Pending(); len(p) > 0 {
		t.Errorf("unsynced: %v", p)
	}
	b.must(b.engine.Close())
}

func TestReplaceDropsTheHandle(t *testing.T) {
	b := newBed(t, drivers.Options{})
	b.must(b.meta.Replace(b.ctx, "o", []byte("old"), drivers.Condition{}))
	p := make([]byte, 3)
	b.must(b.guest.ReadAt(b.ctx, "o", p, 0))
	b.must(b.meta.Replace(b.ctx, "o", []byte("new"), drivers.Condition{}))
	b.must(b.guest.ReadAt(b.ctx, "o", p, 0))
	if string(p) != "new" {
		t.Errorf("read %q", p)
	}
	b.must(b.engine.Close())
}

func TestReadOnlyStorage(t *testing.T) {
	b := newBed(t, drivers.Options{})
	b.must(b.meta.Replace(b.ctx, "o", []byte("data"), drivers.Condition{}))
	e := drivers.NewEngine(readOnlyBackend{b.faulty}, drivers.Options{})
	c := e.Client(drivers.LaneGuest, 0, nil)
	p := make([]byte, 4)
	b.must(c.ReadAt(b.ctx, "o", p, 0))
	b.is(c.WriteAt(b.ctx, "o", p, 0), drivers.ErrReadOnly)
	b.is(c.PunchHole(b.ctx, "o", 0, 1), drivers.ErrReadOnly)
	b.must(c.ReadAt(b.ctx, "o", p, 0))
	if string(p) != "data" {
		t.Errorf("read %q", p)
	}
	b.must(e.Close())
	b.must(b.engine.Close())
}

type readOnlyBackend struct{ drivers.Backend }

func (r readOnlyBackend) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	if mode != drivers.ReadOnly {
		return nil, fmt.Errorf("open %s: %w", name, drivers.ErrReadOnly)
	}
	return r.Backend.Open(ctx, name, mode)
}

// TestPunchWithoutAbilityWritesZeros: and it never changes the size.
func TestPunchWithoutAbilityWritesZeros(t *testing.T) {
	b := newBed(t, drivers.Options{})
	e := drivers.NewEngine(plain{b.faulty}, drivers.Options{})
	c := e.Client(drivers.LaneGuest, 0, nil)
	const size = 300_000
	b.must(c.Create(b.ctx, "o"))
	data := make([]byte, size)
	for i := range data {
		data[i] = 1
	}
	b.must(c.WriteAt(b.ctx, "o", data, 0))
	b.must(c.PunchHole(b.ctx, "o", 10, 200_000))
	b.must(c.PunchHole(b.ctx, "o", size-5, 1000))
	b.must(c.PunchHole(b.ctx, "o", size+5, 1000))
	clear(data[10:200_010])
	clear(data[size-5:])
	got, err := c.Load(b.ctx, "o")
	b.must(err)
	if !slices.Equal(got, data) {
		t.Error("wrong content")
	}
	b.must(c.Allocate(b.ctx, "o", 0, 1<<20)) // does nothing
	b.must(c.DropCache(b.ctx, "o"))
	if _, err := e.Lock(b.ctx, "l"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("lock: %v", err)
	}
	b.must(e.Close())
	b.must(b.engine.Close())
}

// plain is a backend without any ability.
type plain struct{ drivers.Backend }

func (p plain) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	o, err := p.Backend.Open(ctx, name, mode)
	if err != nil {
		return nil, err
	}
	return struct{ drivers.Object }{o}, nil
}

func TestHandleWaitHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{MaxHandles: 1, Deadline: 5 * time.Second})
		b.must(b.guest.Create(b.ctx, "a"))
		b.must(b.guest.Create(b.ctx, "b"))
		release := b.stick(drivers.OpRead)
		r := newResults(1)
		b.engine.Submit(opOf(drivers.OpRead, drivers.LaneGuest, "a", r))
		synctest.Wait()
		began := time.Now()
		b.is(b.guest.WriteAt(b.ctx, "b", []byte("x"), 0), drivers.ErrUnavailable)
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("failed after %v", d)
		}
		written := make(chan error)
		go func() { written <- b.guest.WriteAt(b.ctx, "b", []byte("x"), 0) }()
		synctest.Wait()
		release()
		b.must(<-written)
		<-r.done
		b.must(b.engine.Close())
	})
}
